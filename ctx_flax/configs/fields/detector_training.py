"""Fields of the training of detectors, a part of those of detection, and their rules."""

import ml_collections

from ctx_flax.configs.kinds import Choice, Flag, Number, Tuple, Whole


def add_fields(config: ml_collections.ConfigDict) -> None:
  """Adds the groups assignment, sampling and loss, set as Mask R-CNN has them."""
  config.assignment = assignment = ml_collections.ConfigDict()  # of boxes to the objects, by IoU
  # An anchor is background below the first IoU, of an object from the second on, and between them ignored.
  assignment.anchor_iou = (0.3, 0.7)
  assignment.anchor_best = 0.3  # an object has the anchors of its best IoU too, if that is this much; 0 = off
  assignment.region_iou = (0.5,)  # from which a region is of an object, for each stage of the box heads
  # An object has the regions of its best IoU, even if they overlap another one more. Cascade R-CNN: False.
  assignment.region_best = True

  config.sampling = sampling = ml_collections.ConfigDict()  # what is drawn of an image
  sampling.anchors = 256  # anchors that the region proposal network learns from
  sampling.anchor_positives = 128  # of objects at most; the rest is background
  sampling.regions = 512  # regions that each stage of the heads learns from
  sampling.region_positives = 128  # of objects at most; the mask head sees these

  config.loss = loss = ml_collections.ConfigDict()
  loss.anchor_beta = 0.0  # deltas of anchors: SmoothL1 is quadratic below; 0 = L1. Cascade R-CNN: 1 / 9
  loss.box = 'l1'  # of a region's deltas; or 'giou', of the box that they lead to, as Cascade R-CNN here
  loss.box_weight = 1.0  # of this loss, beside that of its stage. Cascade R-CNN with GIoU: 10
  loss.stage_weights = (1.0,)  # of the losses of each stage. Cascade R-CNN: (1, 0.5, 0.25)


IOU = Number(0, 1, above=True, text='an IoU, above 0 and at most 1')
COUNT = Whole(1, 1_000_000)
RULES = {
  'assignment.anchor_iou': Tuple(
    IOU, 'must be (of background, of objects), IoUs above 0 and up to 1', (2,), True
  ),
  'assignment.anchor_best': Number(0, 1, text='an IoU, or 0 (off)'),
  'assignment.region_iou': Tuple(IOU, 'must hold an IoU above 0 and at most 1 for each stage'),
  'assignment.region_best': Flag(),
  'sampling.anchors': COUNT,
  'sampling.anchor_positives': COUNT,
  'sampling.regions': COUNT,
  'sampling.region_positives': COUNT,
  'loss.anchor_beta': Number(0, text='0 (L1) or more'),
  'loss.box': Choice(('l1', 'giou')),
  'loss.box_weight': Number(0),
  'loss.stage_weights': Tuple(Number(0), 'must hold a weight of 0 or more for each stage'),
}
