"""A network of clips on videos in which time matters, made here: five photographs that move in eight ways, 40
classes, 1,280 videos to train, 320 to test. Real mp4 files, decoded as any others.

python main.py --config=configs/moves.py            contextual, one context per clip
python main.py --config=configs/moves.py:no_shift   the same without the temporal shift: at most 50 %
A video and the one of the opposite motion show the same frames in reverse order, so that a network that does
not order frames cannot tell them apart, whatever its weights. Variants: those of VARIANTS below.
"""

from ctx_flax.configs import default

VARIANTS = {
  'plain': {'model.name': 'resnet_mini'},
  'frame': {'model.context': 'frame'},
  'no_shift': {'model.temporal_shift': False},
  'motions': {'model.num_classes': 8, 'model.class_counts': (8, 6, 4), 'data.classes': 8},
  'epochs': 'train.epochs',
  'lr': 'optimizer.learning_rate',
  'seed': 'seed',
}


def get_config(argument=''):
  config = default.get_config(task='video')
  config.model.name = 'ctx_resnet_mini'
  config.model.num_classes = 40
  config.model.class_counts = (30, 20, 10)
  config.model.segments = 8

  config.optimizer.learning_rate = 2e-3
  config.optimizer.weight_decay = 0.02
  config.optimizer.warmup_epochs = 0.5

  config.train.batch_size = 16
  config.train.epochs = 8.0
  config.train.ema_decay = 0.98
  config.train.log_every = 20
  config.train.eval_every = 80
  config.train.checkpoint_every = 80
  config.eval.batch_size = 32
  config.eval.crop_ratio = 1.0

  config.data.name = 'moves'
  config.data.image_size = 56
  config.data.short_side = 0
  config.data.mean = (0.45,)
  config.data.std = (0.25,)
  return default.with_variants(config, argument, VARIANTS)
