"""Contextual ConvNeXt on scikit-learn's handwritten digits: 1,437 images to train, 360 to test, at 32x32.

python main.py --config=configs/digits.py         the contextual network
python main.py --config=configs/digits.py:plain   the plain one of the same size under the same budget
Variants: plain, wd=VALUE (weight decay), lr=VALUE (learning rate), seed=VALUE.
"""

from ctx_flax.configs import default

VARIANTS = {
  'plain': {'model.name': 'convnext_mini'},
  'wd': 'optimizer.weight_decay',
  'lr': 'optimizer.learning_rate',
  'seed': 'seed',
}


def get_config(argument=''):
  config = default.get_config()
  config.model.name = 'ctx_convnext_mini'
  config.model.num_classes = 10
  # Ten classes leave little to exclude: with (5, 3, 2) the early stages drop too many true classes.
  config.model.class_counts = (8, 6, 4)

  config.optimizer.learning_rate = 2e-3
  config.optimizer.weight_decay = 0.05
  config.optimizer.warmup_epochs = 2.0

  config.train.batch_size = 64
  config.train.epochs = 30.0
  config.train.ema_decay = 0.98  # a memory of 50 steps: this run has 674
  config.train.log_every = 10
  config.train.eval_every = 100
  config.train.checkpoint_every = 100
  config.eval.batch_size = 64
  config.eval.crop_ratio = 1.0

  config.data.name = 'digits'
  config.data.image_size = 32
  config.data.mean = (0.309,)  # of the enlarged images; one value serves all channels
  config.data.std = (0.349,)
  config.data.rotate = 10.0
  config.data.shift = 0.06
  config.data.scale = 0.1
  return default.with_variants(config, argument, VARIANTS)
