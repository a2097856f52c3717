"""What two-stage detectors share: heads for the boxes and masks of proposals, and how they make detections.

Letters: b images, p proposals, q detections, n classes; the background is class n, the last. Boxes are
(x1, y1, x2, y2) in pixels. The rules are those of MMDetection 2.11.
"""

import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_flax.models.detection.box_heads import BoxHead
from ctx_flax.models.detection.mask_head import MaskHead
from ctx_flax.models.detection.region_proposals import RegionProposalNetwork
from ctx_flax.models.limits import FRACTION, Limit, at_least
from ctx_flax.ops.boxes import decode_boxes
from ctx_flax.ops.nms import multiclass_nms
from ctx_flax.ops.roi_align import pyramid_roi_align

BOX_SIZE, MASK_SIZE = 7, 14  # sides of the features of a region


class Detections(NamedTuple):
  """What a detector finds, by falling score; rows in which `valid` is false are zero.

  Attributes:
    boxes: (b, q, 4), in pixels of the images before they were scaled.
    scores: (b, q).
    labels: (b, q) int32.
    valid: (b, q) bool.
    masks: (b, q, 28, 28), probabilities within the box.
    overflow: (b,) bool, see ctx_flax.ops.nms.MulticlassDetections.
  """

  boxes: jax.Array
  scores: jax.Array
  labels: jax.Array
  valid: jax.Array
  masks: jax.Array
  overflow: jax.Array


class Detector(RegionProposalNetwork):
  """A two-stage detector; see MaskRCNN and CascadeMaskRCNN.

  Its methods are the parts that training calls one by one, within flax.linen.apply.

  Attributes, beside those of RegionProposalNetwork:
    num_classes: n.
    hidden: size of the box heads' linear layers.
    mask_convs: number of a mask head's 3x3 convolutions.
    score_threshold: detections have a higher score.
    nms_threshold: of the IoU in the NMS of each class.
    detections: q.
    candidates: how many pairs of a box and a class go into that NMS at most.
    axis_name: pmapped axis over which the box heads' BatchNorm takes its statistics; None: per device.
  """

  num_classes: int = 80
  hidden: int = 1024
  mask_convs: int = 4
  score_threshold: float = 0.05
  nms_threshold: float = 0.5
  detections: int = 100
  candidates: int = 4096
  axis_name: Hashable | None = None

  # What a detector says of itself.

  # Of (dx, dy, dw, dh), for every stage.
  box_stds: ClassVar[tuple[tuple[float, float, float, float], ...]]
  # Numbers of convolutions and of linear layers of a box head.
  box_layers: ClassVar[tuple[int, int]]
  limits: ClassVar[Mapping[str, Limit]] = {
    **RegionProposalNetwork.limits,
    **dict.fromkeys(('num_classes', 'hidden', 'mask_convs', 'detections', 'candidates'), at_least(1)),
    **dict.fromkeys(('score_threshold', 'nms_threshold'), FRACTION),
  }
  # A regex of the parameters that depend on the label set.
  class_parameters: ClassVar[str] = r'box_head\d/(cls|reg)/.*|mask_head\d/logits/.*'

  @property
  def stages(self) -> int:
    """How many times boxes are refined."""
    return len(self.box_stds)

  def setup(self) -> None:
    super().setup()
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    n, (convs, fcs), stages = self.num_classes, self.box_layers, range(self.stages)
    box_head = functools.partial(BoxHead, n, convs, fcs, self.channels, self.hidden, self.axis_name, **dtypes)
    self.box_heads = [box_head(name=f'box_head{i}') for i in stages]
    mask_head = functools.partial(MaskHead, n, self.channels, self.mask_convs, **dtypes)
    self.mask_heads = [mask_head(name=f'mask_head{i}') for i in stages]

  def box_head(
    self,
    pyramid: Sequence[jax.Array],
    rois: jax.Array,
    valid: jax.Array | None = None,
    *,
    stage: int = 0,
    padded_hw: jax.Array | None = None,
    train: bool = False,
  ) -> tuple[jax.Array, jax.Array]:
    """Classes and boxes of regions.

    Args:
      pyramid: of `features`.
      rois: (b, p, 4); no gradient passes to them.
      valid: (b, p) bool, the regions that count in BatchNorm's statistics; None for all.
      stage: which head.
      padded_hw: as for `features`.
      train: whether BatchNorm uses and updates batch statistics (apply with mutable=['batch_stats']).

    Returns:
      logits: (b, p, n + 1), the background last.
      deltas: (b, p, n, 4), to be decoded with box_stds[stage].
    """
    x = self._regions(pyramid, rois, BOX_SIZE, padded_hw)
    valid = None if valid is None else valid.reshape(-1)
    logits, deltas = self.box_heads[stage](x, valid, train=train)
    b, p, _ = rois.shape
    return logits.reshape(b, p, -1), deltas.reshape(b, p, -1, 4)

  def mask_head(
    self,
    pyramid: Sequence[jax.Array],
    rois: jax.Array,
    *,
    stage: int = 0,
    padded_hw: jax.Array | None = None,
  ) -> jax.Array:
    """The logits (b, q, 28, 28, n) of the masks of regions (b, q, 4), for every class."""
    logits = self.mask_heads[stage](self._regions(pyramid, rois, MASK_SIZE, padded_hw))
    return logits.reshape(*rois.shape[:2], *logits.shape[1:])

  def refine(
    self,
    rois: jax.Array,
    deltas: jax.Array,
    labels: jax.Array,
    *,
    stage: int,
    valid_hw: jax.Array | None = None,
  ) -> jax.Array:
    """The regions that a stage makes of its own: its boxes of one class each, without a gradient.

    Args:
      rois: (b, p, 4).
      deltas: (b, p, n, 4), of the stage's box head.
      labels: (b, p) int, from 0 to n - 1.
      stage: which one, whose box_stds are used.
      valid_hw: (b, 2), to clip to; None does not.

    Returns:
      (b, p, 4).
    """
    rois, deltas = jax.lax.stop_gradient((rois, deltas))
    deltas = jnp.take_along_axis(deltas, labels[..., None, None], 2)[:, :, 0]
    return self._decode(deltas, rois, stage, valid_hw)

  def __call__(
    self,
    images: jax.Array,
    *,
    padded_hw: jax.Array | None = None,
    valid_hw: jax.Array | None = None,
    scale: jax.Array | None = None,
    train: bool = False,
  ) -> Detections:
    """Detects objects.

    Args:
      images, padded_hw, valid_hw: as for `features`.
      scale: (b, 2), by which factors the heights and widths of the images had been scaled; None: not at all.
      train: of `features` and `box_head`; the rest is that of a test.
    """
    b, h, w, _ = images.shape
    pyramid, _ = self.features(images, padded_hw=padded_hw, valid_hw=valid_hw, train=train)
    padded_hw = self._padded(images, padded_hw, valid_hw)
    if valid_hw is None:
      valid_hw = jnp.broadcast_to(jnp.array([[h, w]]), (b, 2)) if padded_hw is None else padded_hw
    factor = jnp.ones((b, 4)) if scale is None else jnp.tile(scale[:, ::-1], (1, 2)).astype(jnp.float32)
    rois, _, valid = self.proposals(*self.rpn(pyramid), valid_hw=valid_hw, padded_hw=padded_hw)
    logits, deltas = self.box_head(pyramid, rois, valid, padded_hw=padded_hw, train=train)
    total = logits
    for stage in range(1, self.stages):
      rois = self.refine(rois, deltas, logits[..., :-1].argmax(-1), stage=stage - 1, valid_hw=valid_hw)
      logits, deltas = self.box_head(pyramid, rois, valid, stage=stage, padded_hw=padded_hw, train=train)
      total += logits
    boxes = self._decode(deltas, rois[:, :, None], self.stages - 1, valid_hw) / factor[:, None, None]
    scores = jax.nn.softmax(total / self.stages)[..., :-1]

    def best(boxes: jax.Array, scores: jax.Array, valid: jax.Array) -> Any:
      return multiclass_nms(
        boxes,
        scores,
        score_threshold=self.score_threshold,
        threshold=self.nms_threshold,
        limit=self.detections,
        candidates=self.candidates,
        valid=valid,
      )

    boxes, scores, labels, _, valid, overflow = jax.vmap(best)(boxes, scores, valid)
    masks = jnp.zeros((), jnp.float32)
    for stage in range(self.stages):
      logits = self.mask_head(pyramid, boxes * factor[:, None], stage=stage, padded_hw=padded_hw)
      masks += nn.sigmoid(jnp.take_along_axis(logits, labels[..., None, None, None], -1)[..., 0])
    masks = jnp.where(valid[..., None, None], masks / self.stages, 0.0)
    return Detections(boxes, scores, labels, valid, masks, overflow)

  def _decode(self, deltas: jax.Array, boxes: jax.Array, stage: int, valid_hw: jax.Array | None) -> jax.Array:
    decode = functools.partial(decode_boxes, stds=self.box_stds[stage])
    if valid_hw is None:
      return decode(deltas, boxes)
    return jax.vmap(lambda deltas, boxes, hw: decode(deltas, boxes, hw=hw))(deltas, boxes, valid_hw)

  @nn.nowrap
  def _regions(
    self, pyramid: Sequence[jax.Array], rois: jax.Array, size: int, padded_hw: jax.Array | None
  ) -> jax.Array:
    """The features (b * p, size, size, channels) of regions (b, p, 4)."""
    if (
      self.is_initializing()
    ):  # parameters depend on the shape alone, and to trace the operation takes seconds
      (b, p, _), c = rois.shape, pyramid[0].shape[-1]
      return jnp.zeros((b * p, size, size, c), pyramid[0].dtype)
    x = _align(list(pyramid[:-1]), rois, padded_hw, self.backbone.strides, size)
    return x.reshape(-1, *x.shape[2:])


@functools.partial(jax.jit, static_argnames=('strides', 'size'))  # traced once for all stages
def _align(
  maps: list[jax.Array], rois: jax.Array, padded_hw: jax.Array | None, strides: tuple[int, ...], size: int
) -> jax.Array:
  """RoIAlign of a batch: (b, p, size, size, channels)."""

  def of_image(maps: list[jax.Array], rois: jax.Array, hw: Any) -> jax.Array:
    return pyramid_roi_align(maps, rois, strides=strides, size=size, valid_hw=hw)

  return jax.vmap(of_image, (0, 0, None if padded_hw is None else 0))(maps, rois, padded_hw)
