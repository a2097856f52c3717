"""Contextual ConvNeXt on 1,000 emoji at 32x32: trained on seven drawing styles, tested on two others. As many
classes as ImageNet, with names that say what they are.

python -m ctx_flax.data.prepare emoji emoji                              once: npm fetches 29 MB of pictures
python main.py --config=configs/emoji.py --config.data.path=emoji        the contextual network
python main.py --config=configs/emoji.py:plain --config.data.path=emoji  the plain one under the same budget
Variants: those of VARIANTS below, such as :naive, :rerank and :classes=200.
"""

from ctx_flax.configs import default

VARIANTS = {
  'plain': {'model.name': 'convnext_mini', 'train.class_counts_warmup': 0.0},
  'rerank': {'model.class_selection': 'rerank', 'train.class_counts_warmup': 0.0},
  # All classes are considered to the end; its recall curves suggest N_2, N_3 and N_4.
  'naive': {'model.class_counts': (1000, 1000, 1000), 'train.class_counts_warmup': 0.0},
  'classes': 'data.classes',
  'size': 'data.image_size',  # 64 wants model.stem_stride 4 for maps of the same sizes
  'styles': 'data.test_styles',
  'counts_warmup': 'train.class_counts_warmup',
  'lr': 'optimizer.learning_rate',
  'seed': 'seed',
}


def get_config(argument=''):
  config = default.with_variants(recipe(), argument, VARIANTS)
  if config.model.class_counts:  # of :naive, which means all classes
    config.model.class_counts = (config.data.classes,) * 3
  return config


def recipe():
  """The fields that all variants share: one pass over 400,000 images, no two of them alike."""
  config = default.get_config()
  config.model.name = 'ctx_convnext_mini'
  config.model.num_classes = 0  # as many as data.classes; N_2, N_3, N_4 of 1,000 are the paper's 500, 200, 50
  config.model.layer_scale_init = 0.1  # 1e-6 is for deep networks and long training
  config.model.stem_stride = 2

  config.optimizer.learning_rate = 2e-3
  config.optimizer.weight_decay = 0.05
  config.optimizer.warmup_steps = 200

  config.train.batch_size = 128
  config.train.epochs = 1.0
  config.train.ema_decay = 0.995  # a memory of 200 steps: this run has 3,125
  # A fresh network would drop nearly every label at its first selection and leave the later stages nothing.
  config.train.class_counts_warmup = 0.6
  config.train.log_every = 50
  config.train.eval_every = 1000
  config.train.checkpoint_every = 500
  config.eval.crop_ratio = 1.0

  config.data.name = 'emoji'
  config.data.classes = 1000
  config.data.images_per_class = 400
  config.data.test_images = 4000
  config.data.image_size = 32
  return config
