"""Cascade Mask R-CNN with Contextual ConvNeXt-T on COCO: the paper's training on the schedule of 36 epochs.

python main.py --config=configs/coco_cascade.py --config.data.path=COCO --config.init.weights=RUN
    --workdir=OUT                            RUN: of configs/convnext_t.py, the ImageNet network
python main.py --config=configs/coco_cascade.py:plain ...     the plain network under the same recipe

As coco_mask_rcnn.py, which says the rest, but for the heads: three stages, GIoU on boxes, convolutions with
BatchNorm in the box heads. The numbers are those of ConvNeXt's configurations for MMDetection,
cascade_mask_rcnn_convnext_{tiny,small,base}_patch4_window7_mstrain_480-800_giou_4conv1f_adamw_3x_coco_in1k.
Nothing of this recipe has been trained here. Variants: those of VARIANTS below.
"""

from configs import coco_mask_rcnn
from ctx_flax.configs import default

BASE = {'optimizer.layer_decay': 0.8}
VARIANTS = coco_mask_rcnn.VARIANTS | {
  'b': coco_mask_rcnn.VARIANTS['b'] | BASE,
  'plain_b': coco_mask_rcnn.VARIANTS['plain_b'] | BASE,
}


def get_config(argument=''):
  config = coco_mask_rcnn.recipe()
  config.model.name = 'cascade_mask_rcnn'
  config.model.train_proposals = 2000
  config.model.allowed_border = 0

  config.assignment.region_iou = (0.5, 0.6, 0.7)
  config.assignment.region_best = False
  config.loss.anchor_beta = 1 / 9
  config.loss.box = 'giou'
  config.loss.box_weight = 10.0
  config.loss.stage_weights = (1.0, 0.5, 0.25)

  config.optimizer.learning_rate = 2e-4
  config.optimizer.layer_decay = 0.7
  return default.with_variants(config, argument, VARIANTS)
