"""What the box and mask heads of a stage learn: the class of each region, and box and mask of its object.

Axes: b images, s sampled regions, q of them that may be positive, the first, n classes, g objects, h w pixels
of a mask.

Source: MMDetection 2.11, BBoxHead and FCNMaskHead.
"""

import jax
import jax.numpy as jnp

from ctx_flax.ops import clip_boxes, decode_boxes, encode_boxes, mask_targets
from ctx_flax.tasks.detection import losses
from ctx_flax.tasks.detection.regions import Regions, of_class

UNIT_BOX = 0.0, 0.0, 1.0, 1.0  # in the place of boxes that do not count: deltas from and to it are finite

Stds = tuple[float, float, float, float]


def first(regions: Regions, count: int) -> Regions:
  """The first `count` regions of every image; positives come first."""
  return Regions(*(field[:, :count] for field in regions))


def box_losses(
  logits: jax.Array,
  deltas: jax.Array,
  regions: Regions,
  object_boxes: jax.Array,
  stds: Stds,
  positives: int,
  kind: str,
) -> dict[str, losses.Term]:
  """The losses 'class' and 'box' of a stage.

  Both count all sampled regions, though the second adds up over the positive ones alone.

  Args:
    logits: (b, s, n + 1), background last.
    deltas: (b, s, n, 4), of every class.
    regions: the sampled regions.
    object_boxes: (b, g, 4).
    stds: by which deltas are divided.
    positives: q, regions that may be positive at most.
    kind: 'l1', of the deltas; or 'giou', of the boxes that they lead to.
  """
  classes = losses.class_loss(logits, regions.labels, regions.valid)
  regions = first(regions, positives)
  counted = regions.positive & regions.valid
  moves = of_class(deltas[:, :positives].astype(jnp.float32), regions.labels)
  unit = jnp.asarray(UNIT_BOX)[None, None]
  sources = jnp.where(counted[..., None], regions.boxes, unit)
  targets = jnp.take_along_axis(object_boxes, regions.objects[..., None], 1)
  targets = jnp.where(counted[..., None], targets, unit)
  if kind == 'giou':
    total = losses.giou_loss(decode_boxes(moves, sources, stds=stds), targets, counted)
  else:
    total = losses.smooth_l1_loss(moves, encode_boxes(sources, targets, stds=stds), counted)
  return {'class': classes, 'box': (total, classes[1])}


def mask_losses(
  logits: jax.Array, regions: Regions, masks: jax.Array, padded_hw: jax.Array
) -> dict[str, losses.Term]:
  """The loss 'mask' of a stage: on the map of the object's class, averaged over pixels and positive regions.

  Args:
    logits: (b, q, h, w, n).
    regions: the first q of the sampled ones.
    masks: (b, g, H, W / 8) uint8, of the objects on the whole image: packed bits.
    padded_hw: (b, 2), the size of each image with its own padding, to which boxes are clipped.
  """
  _, _, size, _, n = logits.shape
  own = jnp.minimum(regions.labels, n - 1)[:, :, None, None, None]
  maps = jnp.take_along_axis(logits, own, -1)[..., 0]
  counted = regions.positive & regions.valid

  def targets(masks, boxes, objects, hw):
    return mask_targets(masks, clip_boxes(boxes, hw), objects, size=size, valid=hw)

  drawn = jax.vmap(targets)(masks, regions.boxes, regions.objects, padded_hw)
  return {'mask': losses.mask_loss(maps, jax.lax.stop_gradient(drawn), counted)}
