"""Fine-tunes Contextual ConvNeXt-T on your own images: 30 epochs, what is pretrained at a tenth of the rate.

python main.py --config=configs/finetune.py --config.data.path=DIR --config.init.weights=WEIGHTS
python main.py --config=configs/finetune.py:from_plain --config.data.path=DIR --config.init.weights=PLAIN
DIR holds a folder per class, or train/CLASS and val/CLASS; without a split a fifth of each class is held
out. WEIGHTS is a run's folder or a file, PLAIN one of a plain ConvNeXt-T (docs/weights.md); without them
everything starts from random values, at the full rate. The numbers are ours, not the paper's, and were tried
on small data only. Variants: those of VARIANTS below.
"""

from ctx_flax.configs import default

VARIANTS = {
  'plain': {'model.name': 'convnext_t'},
  'resnet50': {'model.name': 'ctx_resnet50', 'model.drop_path_rate': 0.0},
  # The contextual branches start anew, and the doubled mask keeps the plain network's function at first.
  'from_plain': {'init.allow_missing': ('contextual', 'head'), 'model.mask_gain': 2.0},
  'float32': {'model.dtype': 'float32'},
  'lr': 'optimizer.learning_rate',
  'batch': 'train.batch_size',
  'epochs': 'train.epochs',
  'seed': 'seed',
}


def get_config(argument=''):
  config = default.get_config()
  config.model.name = 'ctx_convnext_t'
  config.model.num_classes = 0
  config.model.drop_path_rate = 0.1
  config.model.dtype = 'bfloat16'  # on a CPU :float32 is faster

  config.init.reset_classes = True
  config.init.pretrained_rate = 0.1

  config.loss.label_smoothing = 0.1

  config.optimizer.learning_rate = 5e-4
  config.optimizer.reference_batch = 64
  config.optimizer.weight_decay = 0.05
  config.optimizer.warmup_epochs = 2.0

  config.train.batch_size = 64
  config.train.epochs = 30.0
  config.train.ema_decay = 0.0  # the run is short
  config.train.log_every = 10
  config.train.eval_every = 200
  config.train.checkpoint_every = 200
  config.train.checkpoint_minutes = 10.0
  config.eval.batch_size = 64

  config.data.name = 'image_folder'
  config.data.test_share = 0.2
  config.data.image_size = 224
  config.data.crop_scale = (0.25, 1.0)
  config.data.flip = 0.5
  config.data.rand_augment.operations = 2
  config.data.workers = 2
  config.data.threads = 1
  return default.with_variants(config, argument, VARIANTS)
