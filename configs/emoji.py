"""Contextual ConvNeXt on 1,000 emoji at 32x32: trained on seven drawing styles, tested on two others. As many
classes as ImageNet, with names that say what they are.

python -m ctx_flax.data.prepare emoji emoji                              once: npm fetches 29 MB of pictures
python main.py --config=configs/emoji.py --config.data.path=emoji        the contextual network
python main.py --config=configs/emoji.py:plain --config.data.path=emoji  the plain one under the same budget
Variants: those of VARIANTS below, such as :naive, :rerank and :classes=200.
"""

from configs import patches
from ctx_flax.configs import default

VARIANTS = patches.VARIANTS | {
  # All classes are considered to the end: what N_2, N_3 and N_4 are chosen by.
  'naive': {'model.class_counts': (1000, 1000, 1000), 'train.class_counts_warmup': 0.0},
  'classes': 'data.classes',
  'size': 'data.image_size',  # 64 wants model.stem_stride 4 for maps of the same sizes
  'styles': 'data.test_styles',
}


def get_config(argument=''):
  config = default.with_variants(recipe(), argument, VARIANTS)
  if config.model.class_counts:  # of :naive, which means all classes
    config.model.class_counts = (config.data.classes,) * 3
  return config


def recipe():
  """That of patches, for one pass over 400,000 images of which no two are alike."""
  config = patches.recipe('emoji', classes=1000)
  config.model.num_classes = 0  # as many as data.classes; N_2, N_3, N_4 of 1,000 are the paper's 500, 200, 50
  config.model.stem_stride = 2

  config.optimizer.warmup_epochs = 0.0
  config.optimizer.warmup_steps = 200

  config.train.epochs = 1.0
  config.train.ema_decay = 0.995  # a memory of 200 steps: this run has 3,125
  config.train.log_every = 50
  config.train.eval_every = 1000
  config.train.checkpoint_every = 500

  config.data.images_per_class = 400
  config.data.test_images = 4000
  return config
