"""Contextual ResNet50 with TSM's temporal shift on Kinetics-400, as in the paper's supplementary 2.4.

python main.py --config=configs/kinetics_tsm.py --config.data.path=K400 --config.init.weights=RUN
    --workdir=OUT                            RUN: of configs/resnet50.py, the ImageNet network
python main.py --config=configs/kinetics_tsm.py:plain ...     the plain network, TSM itself
python main.py --workdir=OUT --mode=evaluate --config.eval.views=dense --config.eval.batch_size=8

What K400 must hold, how to make it four times as fast to read, the published numbers of TSM and what was not
measured here: docs/video.md. For eight GPUs; nothing of this recipe has been trained here. The paper says:
TSM's settings for training and testing, pretrained by Table 2, new class embeddings, N = 400, 200, 80, 20.
What it leaves open (frames, sampling, views, rates of new parameters) is from TSM's public script, or ours.
Variants: those of VARIANTS below.
"""

from ctx_flax.configs import default

# TSM's rules for the class head, which is new: five times the rate, ten times for its bias.
PLAIN_GROUPS = (('fc/kernel', 5.0, 1.0), ('fc/bias', 10.0, 1.0), ('(?!fc/).*', 1.0, 1.0))
# TSM gives every linear layer that rate and has no rule for the other new layers, so these are ours: five
# times for what is new, the embeddings, and twice for the biases of linear layers, as TSM has it.
NEW, BIASES = 'contextualizer/class_embedding', '.*(proj|out|inner|outer)/bias'
CONTEXTUAL_GROUPS = ((NEW, 5.0, 1.0), (BIASES, 2.0, 1.0), (f'(?!{NEW}$|{BIASES}$).*', 1.0, 1.0))
VARIANTS = {
  'plain': {'model.name': 'resnet50', 'optimizer.groups': PLAIN_GROUPS},
  'frame': {'model.context': 'frame'},  # every frame considers classes of its own
  'no_shift': {'model.temporal_shift': False},  # TSN: the frames of a clip do not see one another
  'segments': 'model.segments',
  'dense': {'data.sampling': 'dense', 'train.epochs': 100.0, 'optimizer.drops': (40.0, 80.0)},
  'lr': 'optimizer.learning_rate',
  'seed': 'seed',
}


def get_config(argument=''):
  config = default.get_config(task='video')
  config.model.name = 'ctx_resnet50'
  config.model.num_classes = 400
  config.model.class_counts = (200, 80, 20)
  config.model.segments = 8
  config.model.dropout = 0.5
  config.model.dtype = 'bfloat16'  # not stated; scores, losses and batch statistics are float32
  config.init.reset_classes = True

  config.optimizer.name = 'sgd'
  config.optimizer.learning_rate = 0.02
  config.optimizer.reference_batch = 128
  config.optimizer.momentum = 0.9
  config.optimizer.weight_decay = 1e-4
  config.optimizer.clip_norm = 20.0
  config.optimizer.schedule = 'steps'
  config.optimizer.drops = (20.0, 40.0)
  config.optimizer.drop_factor = 0.1
  config.optimizer.groups = CONTEXTUAL_GROUPS

  config.train.batch_size = 128
  config.train.epochs = 50.0
  config.train.ema_decay = 0.0
  config.train.log_every = 50
  config.train.eval_every = 9390  # five epochs
  config.train.checkpoint_every = 9390
  config.train.checkpoint_minutes = 30.0
  config.eval.batch_size = 128
  config.eval.crop_ratio = 0.875

  config.data.name = 'kinetics_csv'
  config.data.image_size = 224
  config.data.sampling = 'uniform'
  config.data.short_side = 256
  config.data.crop_scales = (1.0, 0.875, 0.75, 0.66)
  config.data.flip = 0.5
  config.data.threads = 2
  config.data.workers = 16
  return default.with_variants(config, argument, VARIANTS)
