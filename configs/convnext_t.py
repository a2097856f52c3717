"""Contextual ConvNeXt-T on ImageNet, as in the paper's supplementary Table 2.

python main.py --config=configs/convnext_t.py --workdir=RUN            the contextual network
python main.py --config=configs/convnext_t.py:plain --workdir=RUN      the plain one under the same recipe
python main.py --config=configs/convnext_t.py:folder --config.data.path=IMAGENET   from folders of JPEGs
For eight GPUs of 80 GB: by --mode=check a part of 512 images keeps 65 GB for its backward pass (counted from
shapes, not measured). With fewer or smaller ones raise --config.train.accumulation: the result is the same.
The paper's abstract puts it 1.8 points above the plain ConvNeXt-T. Not reproduced here yet.
Variants: those of VARIANTS below.
"""

from ctx_flax.configs import default

# Where the paper and the released code disagree, the recipe takes the paper's number; the other reading:
#   wd=0.05       the code's run script, and the ConvNeXt recipe that the paper cites (the paper prints 2e-5)
#   ema=0.9998    the code's value, which its scripts leave off altogether (the paper: 0.9999)
#   rerank        the code scores all classes at every stage (the paper considers ever fewer)
#   every=2       the code makes every second block contextual unless told (the paper: every third)
#   per_epoch,cooldown=10   the code changes the rate once an epoch, and adds ten epochs at the lowest
VARIANTS = {
  'plain': {'model.name': 'convnext_t'},
  'rerank': {'model.class_selection': 'rerank'},
  # All classes are considered to the end: what N_2, N_3 and N_4 are chosen by (50 epochs suffice).
  'naive': {'model.class_counts': (1000, 1000, 1000), 'train.epochs': 50.0},
  'folder': {'data.name': 'image_folder', 'model.num_classes': 0},
  'list': {'data.name': 'image_list', 'model.num_classes': 0},
  'float32': {'model.dtype': 'float32'},
  'wd': 'optimizer.weight_decay',
  'lr': 'optimizer.learning_rate',
  'ema': 'train.ema_decay',
  'every': 'model.contextual_every',
  'per_epoch': {'optimizer.per_epoch': True},
  'cooldown': 'optimizer.cooldown_epochs',
  'counts_warmup': 'train.class_counts_warmup',
  'batch': 'train.batch_size',
  'seed': 'seed',
}


def get_config(argument=''):
  return default.with_variants(recipe('ctx_convnext_t', drop_path_rate=0.1), argument, VARIANTS)


def recipe(name, drop_path_rate):
  """The recipe of ConvNeXt-T, S and B, which differ in the network and its stochastic depth."""
  config = default.get_config()
  config.model.name = name
  config.model.num_classes = 1000
  config.model.drop_path_rate = drop_path_rate
  config.model.layer_scale_init = 1e-6
  config.model.dtype = 'bfloat16'  # not stated by the paper; scores and losses are float32 in any case

  config.loss.label_smoothing = 0.1

  config.optimizer.learning_rate = 4e-3
  config.optimizer.reference_batch = 4096
  config.optimizer.weight_decay = 2e-5  # the paper; its code 0.05: convnext_t.py:wd=0.05
  config.optimizer.warmup_epochs = 20.0

  config.train.batch_size = 4096
  config.train.epochs = 300.0  # the code adds ten at the lowest rate: convnext_t.py:cooldown=10
  config.train.ema_decay = 0.9999  # the paper; its code none, or 0.9998
  config.train.log_every = 50
  config.train.eval_every = 3120  # ten epochs
  config.train.checkpoint_every = 3120
  config.train.checkpoint_minutes = 30.0
  config.eval.batch_size = 4096
  config.eval.crop_ratio = 0.875

  imagenet(config)
  config.data.erasing = 0.25
  config.data.mixup = 0.8
  config.data.cutmix = 1.0
  return config


def imagenet(config):
  """ImageNet at 224 px with random crops, flips and RandAugment (9, 0.5), which all recipes share."""
  config.data.name = 'tfds:imagenet2012'
  config.data.image_size = 224
  config.data.crop_scale = (0.08, 1.0)
  config.data.flip = 0.5
  config.data.rand_augment.operations = 2
  config.data.rand_augment.magnitude = 9.0
  config.data.rand_augment.magnitude_std = 0.5
  config.data.rand_augment.probability = 0.5
  config.data.workers = 8  # by what one core decodes, a GPU needs several: see data/wait_share in the logs
  config.data.threads = 1  # more of them hold more batches: a worker makes so many at a time
