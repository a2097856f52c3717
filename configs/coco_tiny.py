"""A small Mask R-CNN with a contextual ConvNeXt on images made here, cut-outs of photographs on photographs:
eight classes, 500 images to train, 100 to test, written once in COCO's layout. For a laptop, without a
download or weights.

python main.py --config=configs/coco_tiny.py         the contextual backbone
python main.py --config=configs/coco_tiny.py:plain   the plain one under the same budget
The backbone has never classified, so that its contexts are of classes that mean nothing at first: what the
image heads look for is random and stays so, as no gradient reaches them; what the embeddings of the chosen
classes say is learned. What the method is worth is to be seen with a backbone that has classified many:

python main.py --config=configs/coco_tiny.py:patches --config.init.weights=RUN         one of patches.py
python main.py --config=configs/coco_tiny.py:plain_patches --config.init.weights=RUN   patches.py:plain
Variants: those of VARIANTS below.
"""

from ctx_flax.configs import default

# The network of configs/patches.py, whose classes contexts are made of, and which stay as they are.
PATCHES = {
  'model.dims': (),
  'model.depths': (),
  'model.layer_scale_init': 0.1,
  'model.context_classes': 0,
  'model.class_counts': (),
  'model.embed_dim': 256,
  'model.mask_gain': 1.0,
  'init.allow_missing': ('detector',),
  'init.freeze': (),
}
VARIANTS = {
  'plain': {'model.backbone': 'convnext_mini', 'init.freeze': ()},
  'patches': PATCHES,
  'plain_patches': PATCHES | {'model.backbone': 'convnext_mini'},
  'epochs': 'train.epochs',
  'lr': 'optimizer.learning_rate',
  'seed': 'seed',
}


def get_config(argument=''):
  config = default.get_config(task='detection')
  config.model.name = 'mask_rcnn'
  config.model.backbone = 'ctx_convnext_mini'
  config.model.num_classes = 8
  config.model.dims = (24, 48, 96, 192)
  config.model.depths = (1, 1, 2, 1)
  config.model.layer_scale_init = 1.0  # few blocks, and a short training
  config.model.context_classes = 32
  config.model.class_counts = (16, 8, 4)
  config.model.embed_dim = 32
  config.model.mask_gain = 2.0  # contextual convolutions begin as plain ones
  config.model.channels = 32
  config.model.hidden = 128
  config.model.mask_convs = 2
  config.model.train_pre_nms = config.model.test_pre_nms = 200
  config.model.train_proposals = config.model.test_proposals = 80
  # Class embeddings are trained here, as there are no weights to keep; the image heads, which have no
  # gradient, would only decay.
  config.init.freeze = (r'backbone/contextualizer/head\d/.*',)

  config.sampling.anchors = 64
  config.sampling.anchor_positives = 32
  config.sampling.regions = 32
  config.sampling.region_positives = 16

  config.optimizer.learning_rate = 2e-3
  config.optimizer.weight_decay = 0.05
  config.optimizer.schedule = 'steps'
  config.optimizer.drops = (9.0, 11.0)
  config.optimizer.warmup_steps = 100
  config.optimizer.warmup_factor = 0.01

  config.train.batch_size = 4
  config.train.epochs = 12.0
  config.train.ema_decay = 0.0
  config.train.log_every = 25
  config.train.eval_every = 500  # four epochs
  config.train.checkpoint_every = 500
  config.eval.batch_size = 4
  config.eval.short_side = 160

  config.data.name = 'coco_tiny'
  config.data.canvases = ((160, 160),)
  config.data.scales = (160,)
  config.data.long_side = 160  # three of four images keep their size
  config.data.crop_probability = 0.0
  config.data.crop_scales = (160,)
  config.data.max_objects = 8
  return default.with_variants(config, argument, VARIANTS)
