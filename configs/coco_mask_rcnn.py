"""Mask R-CNN with Contextual ConvNeXt-T on COCO: the paper's training on the schedule of 36 epochs.

python main.py --config=configs/coco_mask_rcnn.py --config.data.path=COCO --config.init.weights=RUN
    --workdir=OUT                            RUN: of configs/convnext_t.py, the ImageNet network
python main.py --config=configs/coco_mask_rcnn.py:plain ...     the plain network under the same recipe
python main.py --config=configs/coco_mask_rcnn.py:test_dev --config.data.path=COCO --workdir=OUT
    --mode=evaluate                          writes what COCO's server evaluates

For eight GPUs, two images each; on fewer give each more parts, one image at a time:
--config.train.accumulation=8 on one is the same training. What COCO must hold, the protocol and what was not
measured here: docs/detection.md. The paper says: ConvNeXt's settings, no losses of classification, class
embeddings as ImageNet left them, the rest fine-tuned. The numbers are those of ConvNeXt's configuration for
MMDetection, mask_rcnn_convnext_tiny_patch4_window7_mstrain_480-800_adamw_3x_coco_in1k; what it does not have,
S and B without a cascade, and ResNet50, is ours. So is what the paper does not say: contexts are made of all
classes of RUN, of which the stages keep as many as there (500, 200 and 50 of 1,000). Nothing of this recipe
has been trained here.
Variants: those of VARIANTS below.
"""

from typing import Any

from ctx_flax.configs import default

# Stochastic depth as ConvNeXt has it in Cascade R-CNN; with layer_decay=0.95 as for T, it is ours.
SMALL, BASE = {'model.drop_path_rate': 0.6}, {'model.drop_path_rate': 0.7}
# A ResNet has neither stochastic depth, layer scale nor ids of layers; stem and first stage stay as they are.
# The rate is that of ConvNeXt: ours.
RESNET = {'model.drop_path_rate': 0.0, 'model.layer_scale_init': 1e-6, 'optimizer.layer_decay': 1.0}
VARIANTS: dict[str, Any] = {
  'plain': {'model.backbone': 'convnext_t'},
  's': {'model.backbone': 'ctx_convnext_s'} | SMALL,
  'b': {'model.backbone': 'ctx_convnext_b'} | BASE,
  'resnet50': {'model.backbone': 'ctx_resnet50'} | RESNET,
  'plain_s': {'model.backbone': 'convnext_s'} | SMALL,
  'plain_b': {'model.backbone': 'convnext_b'} | BASE,
  'plain_resnet50': {'model.backbone': 'resnet50'} | RESNET,
  # COCO's test images, whose objects are not public: for --mode=evaluate, which writes files for its server.
  'test_dev': {'data.test_split': 'test-dev2017', 'eval.results': 'test-dev2017'},
  'float32': {'model.dtype': 'float32'},
  'lr': 'optimizer.learning_rate',
  'parts': 'train.accumulation',
  'seed': 'seed',
}


def get_config(argument=''):
  config = recipe()
  config.model.name = 'mask_rcnn'
  config.optimizer.learning_rate = 1e-4
  config.optimizer.layer_decay = 0.95
  return default.with_variants(config, argument, VARIANTS)


def recipe():
  """What Mask R-CNN and Cascade R-CNN share."""
  config = default.get_config(task='detection')
  config.model.backbone = 'ctx_convnext_t'
  config.model.num_classes = 80
  config.model.drop_path_rate = 0.4
  config.model.layer_scale_init = 1.0  # as there; init.weights has its own
  config.model.dtype = 'bfloat16'  # there float16 in part; boxes, scores, losses and norms are float32
  # What init.weights, a network of classes, does not have. A contextual network's class embeddings, scale of
  # the scores and image heads stay as they are there: nothing that is minimised depends on the scores.
  config.init.allow_missing = ('detector',)

  config.optimizer.reference_batch = 16
  config.optimizer.weight_decay = 0.05
  config.optimizer.schedule = 'steps'
  config.optimizer.drops = (27.0, 33.0)
  config.optimizer.drop_factor = 0.1
  config.optimizer.warmup_steps = 500
  config.optimizer.warmup_factor = 0.001

  config.train.batch_size = 16
  config.train.epochs = 36.0
  config.train.ema_decay = 0.0
  config.train.log_every = 50
  config.train.eval_every = 7330  # an epoch
  config.train.checkpoint_every = 7330
  config.train.checkpoint_minutes = 30.0
  config.eval.batch_size = 16

  config.data.name = 'coco'
  config.data.workers = 16
  config.data.threads = 1  # more of them hold more batches: a worker makes so many at a time
  return config
