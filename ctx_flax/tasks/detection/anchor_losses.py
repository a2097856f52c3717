"""What a region proposal network learns: which anchors are objects, and where these are.

Axes: b images, n anchors, s sampled anchors, g objects.

Source: MMDetection 2.11, RPNHead.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ctx_flax.models.detection.anchors import pyramid_anchors, valid_anchors
from ctx_flax.ops import encode_boxes
from ctx_flax.tasks.detection import losses
from ctx_flax.tasks.detection.assignment import assign
from ctx_flax.tasks.detection.sampling import Samples, sample
from ctx_flax.tasks.detection.settings import Settings
from ctx_flax.training.task import Batch

UNIT_BOX = 0.0, 0.0, 1.0, 1.0  # where there is no object: its deltas are finite, and do not count


class Targets(NamedTuple):
  """What the sampled anchors of an image are.

  Attributes:
    samples: the anchors.
    deltas: (s, 4), from the positive ones to their objects.
  """

  samples: Samples
  deltas: jax.Array


def anchor_targets(
  anchors: jax.Array,
  valid: jax.Array,
  object_boxes: jax.Array,
  labels: jax.Array,
  key: jax.Array,
  settings: Settings,
) -> Targets:
  """The Targets of one image: anchors (n, 4), valid (n,), object_boxes (g, 4), labels (g,), -1 for none."""
  objects = assign(anchors, object_boxes, labels, settings.anchors, valid).objects
  draw = settings.anchor_draw
  samples = sample(objects, key, size=draw.size, positives=draw.positives)
  own = object_boxes[jnp.where(samples.positive, objects[samples.indices], 0)]
  own = jnp.where(samples.positive[:, None], own, jnp.asarray(UNIT_BOX)[None])
  return Targets(samples, encode_boxes(anchors[samples.indices], own))


def anchor_losses(
  model: Any,
  logits: Sequence[jax.Array],
  deltas: Sequence[jax.Array],
  batch: Batch,
  extents: dict[str, jax.Array],
  keys: jax.Array,
  settings: Settings,
) -> dict[str, losses.Term]:
  """The losses 'rpn_class' and 'rpn_box' of a batch.

  Args:
    model: the detector; uses strides and allowed_border.
    logits: (b, h, w, 3) of every level.
    deltas: (b, h, w, 3, 4) of every level.
    batch: 'boxes' (b, g, 4), 'labels' int (b, g), -1 where there is no object, and 'weight' (b,).
    extents: {'valid_hw': (b, 2), 'padded_hw': (b, 2)} of the images.
    keys: (b,), of the draws.
    settings: of the training.
  """
  anchors = pyramid_anchors([(level.shape[1], level.shape[2]) for level in logits], model.strides)

  def of_image(boxes, labels, key, extents):
    inside = valid_anchors(anchors, model.strides, allowed_border=model.allowed_border, **extents)
    valid = jnp.concatenate([level.reshape(-1) for level in inside])
    return anchor_targets(flat_anchors, valid, boxes, labels, key, settings)

  flat_anchors = jnp.concatenate([level.reshape(-1, 4) for level in anchors])
  targets = jax.vmap(of_image)(batch['boxes'], batch['labels'], keys, extents)
  b = len(keys)
  return sampled_losses(
    jnp.concatenate([level.reshape(b, -1) for level in logits], 1),
    jnp.concatenate([level.reshape(b, -1, 4) for level in deltas], 1),
    targets,
    batch['weight'] > 0,
    settings.anchor_beta,
  )


def sampled_losses(
  logits: jax.Array, deltas: jax.Array, targets: Targets, present: jax.Array, beta: float = 0.0
) -> dict[str, losses.Term]:
  """The losses 'rpn_class' and 'rpn_box' of the sampled anchors; they have one count, proposal_count.

  Args:
    logits: (b, n) of all anchors.
    deltas: (b, n, 4).
    targets: (b, ...).
    present: bool (b,), False for rows that only fill the batch.
    beta: of the SmoothL1 loss; 0 is L1.
  """
  samples = targets.samples
  positive, valid = samples.positive, samples.valid & present[:, None]
  count = losses.proposal_count(positive, valid, present)
  of_sampled = jnp.take_along_axis(logits, samples.indices, 1)
  moves = jnp.take_along_axis(deltas, samples.indices[..., None], 1)
  return {
    'rpn_class': (losses.object_loss(of_sampled, positive, valid), count),
    'rpn_box': (losses.smooth_l1_loss(moves, targets.deltas, positive & valid, beta), count),
  }
