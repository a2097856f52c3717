"""Contextual ConvNeXt on 200 regions of photographs, each a class: 20,000 images to train, 4,000 to test,
made here at 32x32. Many classes without a download, so that excluding classes has something to exclude.

python main.py --config=configs/patches.py         the contextual network
python main.py --config=configs/patches.py:plain   the plain one under the same budget
Variants: those of VARIANTS below.
"""

from ctx_flax.configs import default

VARIANTS = {
  'plain': {'model.name': 'convnext_mini', 'train.class_counts_warmup': 0.0},
  'rerank': {'model.class_selection': 'rerank', 'train.class_counts_warmup': 0.0},
  # All classes are considered to the end: what N_2, N_3 and N_4 are chosen by.
  'naive': {'model.class_counts': (200, 200, 200), 'train.class_counts_warmup': 0.0},
  'counts_warmup': 'train.class_counts_warmup',
  'lr': 'optimizer.learning_rate',
  'seed': 'seed',
}


def get_config(argument=''):
  return default.with_variants(recipe('patches', classes=200), argument, VARIANTS)


def recipe(source, classes):
  """The recipe of the sources with many small images, patches and glyphs."""
  config = default.get_config()
  config.model.name = 'ctx_convnext_mini'
  config.model.num_classes = classes
  config.model.layer_scale_init = 0.1  # 1e-6 is for deep networks and long training

  config.optimizer.learning_rate = 2e-3
  config.optimizer.weight_decay = 0.05
  config.optimizer.warmup_epochs = 1.0

  config.train.batch_size = 128
  config.train.epochs = 10.0
  config.train.ema_decay = 0.99  # a memory of 100 steps: this run has 1,560
  # A fresh network would drop nearly every label at its first selection and leave the later stages nothing.
  config.train.class_counts_warmup = 0.6
  config.train.log_every = 20
  config.train.eval_every = 400
  config.train.checkpoint_every = 400
  config.eval.crop_ratio = 1.0

  config.data.name = source
  config.data.classes = classes
  config.data.image_size = 32
  return config
