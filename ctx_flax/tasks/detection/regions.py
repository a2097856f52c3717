"""The regions that a stage of the box heads learns from, what it learns there, and what the next one sees.

Axes: b images, p proposals, s sampled regions, g objects, n classes. Boxes are (x1, y1, x2, y2) in pixels.

Source: MMDetection 2.11, StandardRoIHead and CascadeRoIHead.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ctx_flax.tasks.detection.assignment import IGNORED, Thresholds, assign
from ctx_flax.tasks.detection.sampling import sample
from ctx_flax.tasks.detection.settings import Draw


class Regions(NamedTuple):
  """Sampled regions of images: positives, then negatives, then empty slots.

  Attributes:
    boxes: (b, s, 4); 0 in an empty slot.
    objects: (b, s) int32, the number of a positive region's object, 0 of the others.
    labels: (b, s) int32, its class; n, background, of the others.
    positive: (b, s) bool.
    valid: (b, s) bool, the slot is not empty.
    own: (b, s) bool, the region is the box of an object itself.
  """

  boxes: jax.Array
  objects: jax.Array
  labels: jax.Array
  positive: jax.Array
  valid: jax.Array
  own: jax.Array


def sample_regions(
  proposals: jax.Array,
  valid: jax.Array,
  object_boxes: jax.Array,
  labels: jax.Array,
  key: jax.Array,
  thresholds: Thresholds,
  draw: Draw,
  background: int,
) -> Regions:
  """Assigns the proposals of an image to its objects, adds the objects themselves, and draws regions.

  Args:
    proposals: (p, 4).
    valid: (p,) bool.
    object_boxes: (g, 4).
    labels: (g,) int, -1 where there is no object.
    key: of the draw.
    thresholds: when a proposal is an object.
    draw: how many regions.
    background: n.

  Returns:
    Regions without the axis b; s is draw.size, or p + g if that is smaller.
  """
  proposals, object_boxes = jax.lax.stop_gradient((proposals, object_boxes))
  p, g = len(proposals), len(object_boxes)
  assigned = assign(proposals, object_boxes, labels, thresholds, valid).objects
  themselves = jnp.where(labels >= 0, jnp.arange(g, dtype=jnp.int32), IGNORED)
  # The objects come last: what is drawn of the proposals does not depend on how many places for objects the
  # batch has.
  objects = jnp.concatenate([assigned, themselves])
  indices, positive, valid = sample(objects, key, size=draw.size, positives=draw.positives)
  boxes = jnp.concatenate([proposals, object_boxes])[indices]
  objects = jnp.where(positive, objects[indices], 0)
  return Regions(
    jnp.where(valid[:, None], boxes, 0.0),
    objects,
    jnp.where(positive, labels[objects], background).astype(jnp.int32),
    positive,
    valid,
    valid & (indices >= p),
  )


def of_class(values: jax.Array, labels: jax.Array) -> jax.Array:
  """The deltas (b, s, 4) of each region's class (b, s), out of (b, s, n, 4); the last ones for background."""
  labels = jnp.minimum(labels, values.shape[2] - 1)
  return jnp.take_along_axis(values, labels[:, :, None, None], 2)[:, :, 0]


def refined(
  model: Any, regions: Regions, logits: jax.Array, deltas: jax.Array, image_hw: jax.Array, stage: int
):
  """The proposals for the next stage, (boxes (b, s, 4), valid (b, s)): what a stage makes of its regions.

  A positive region is moved as a box of its object's class, a negative one as a box of its best class.
  Objects themselves, which will be added again, are left out. No gradient passes.

  Args:
    model: the detector, bound.
    regions: of the stage.
    logits: (b, s, n + 1), background last.
    deltas: (b, s, n, 4).
    image_hw: (b, 2), to which boxes are clipped.
    stage: its number, from 0.
  """
  best = logits[..., :-1].argmax(-1).astype(jnp.int32)
  labels = jnp.where(regions.positive, regions.labels, best)
  boxes = model.refine(regions.boxes, deltas, labels, stage=stage, valid_hw=image_hw)
  return jax.lax.stop_gradient(boxes), regions.valid & ~regions.own
