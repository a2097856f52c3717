"""Which object a box belongs to, by the largest IoU.

Axes: n boxes, g objects. One image each, vmap for more. Objects that only fill the array have label -1.

Source: MMDetection 2.11, MaxIoUAssigner.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ctx_flax.ops import box_iou

# Of an Assignment, instead of the number of an object.
BACKGROUND, IGNORED = -1, -2
# MMDetection's bound on the union, by which an empty box has IoU 0.
SMALLEST_UNION = 1e-6
# Objects whose IoU with all boxes are held at once: an image of 800 x 1344 pixels has 268,569 anchors, which
# makes 17 MB instead of 107 for 100 objects.
OBJECTS_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class Thresholds:
  """What an IoU means.

  Attributes:
    positive: from here on a box belongs to the object.
    negative: below, a box is background; between the two it is ignored.
    best: an object whose best IoU is at least this gets all the boxes of that IoU, whatever else they
      overlap, if they are not enough for `positive` too; 0 is off.
  """

  positive: float
  negative: float
  best: float = 0.0

  def __post_init__(self):
    if not 0 < self.negative <= self.positive <= 1 or not 0 <= self.best <= 1:
      raise ValueError(f'{self}: expected 0 < negative <= positive <= 1 and best from 0 (off) to 1')


class Assignment(NamedTuple):
  """The object of every box.

  Attributes:
    objects: (n,) int32, the number of its object; BACKGROUND or IGNORED.
    iou: (n,) float32, its largest IoU with an object; 0 without objects.
  """

  objects: jax.Array
  iou: jax.Array


def assign(
  boxes: jax.Array,
  object_boxes: jax.Array,
  labels: jax.Array,
  thresholds: Thresholds,
  valid: jax.Array | None = None,
) -> Assignment:
  """Assigns boxes to objects: the largest IoU decides, of equal ones the first object.

  With `thresholds.best` every object gets the boxes that it overlaps most besides; a box that is the best of
  several objects belongs to the last of them. No gradient passes.

  Args:
    boxes: (n, 4).
    object_boxes: (g, 4).
    labels: (g,) int, -1 where there is no object.
    thresholds: see there.
    valid: (n,) bool; the other boxes are ignored and are nobody's best. None: all are valid.
  """
  boxes, object_boxes = jax.lax.stop_gradient((boxes, object_boxes))
  count = len(labels)
  parts = max(-(-count // OBJECTS_AT_ONCE), 1)
  size = min(max(count, 1), OBJECTS_AT_ONCE)
  rest = parts * size - count
  object_boxes = jnp.pad(object_boxes, ((0, rest), (0, 0)))
  present = jnp.pad(labels, (0, rest), constant_values=-1) >= 0
  numbers = jnp.arange(parts * size, dtype=jnp.int32)

  def compare(largest, part):
    (iou, nearest, best_of), (part_boxes, part_present, part_numbers) = largest, part
    pairs = box_iou(part_boxes, boxes, eps=SMALLEST_UNION)
    usable = part_present[:, None] if valid is None else part_present[:, None] & valid[None]
    # Kept in memory: computed once for the maximum and once for the comparison with it, an IoU may be rounded
    # in two ways.
    pairs = jax.lax.optimization_barrier(jnp.where(usable, pairs, -1.0))
    here = pairs.max(0)
    nearest = jnp.where(here > iou, part_numbers[pairs.argmax(0)], nearest)
    if thresholds.best:
      best = pairs.max(1, keepdims=True)
      is_best = (pairs == best) & (best >= thresholds.best)
      best_of = jnp.maximum(best_of, jnp.where(is_best, part_numbers[:, None], -1).max(0))
    return (jnp.maximum(here, iou), nearest, best_of), None

  n = len(boxes)
  start = jnp.zeros(n), jnp.zeros(n, jnp.int32), jnp.full(n, -1, jnp.int32)
  parts_of = (
    object_boxes.reshape(parts, size, 4),
    present.reshape(parts, size),
    numbers.reshape(parts, size),
  )
  (iou, nearest, best_of), _ = jax.lax.scan(compare, start, parts_of)
  objects = jnp.where(iou < thresholds.negative, BACKGROUND, IGNORED)
  objects = jnp.where(iou >= thresholds.positive, nearest, objects)
  objects = jnp.where(best_of >= 0, best_of, objects)
  if valid is not None:
    objects = jnp.where(valid, objects, IGNORED)
  return Assignment(objects, iou)
