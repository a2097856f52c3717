"""From the answers of the region proposal network to boxes that may hold an object.

Letters: b images, p proposals. No gradient passes. The rules are those of MMDetection 2.11.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ctx_flax.models.detection.anchors import inside_positions, pyramid_anchors
from ctx_flax.ops.boxes import decode_boxes
from ctx_flax.ops.nms import nms


class Proposals(NamedTuple):
  """Proposals by falling score; rows in which `valid` is false are zero.

  Attributes:
    boxes: (b, p, 4), in pixels of the image.
    scores: (b, p).
    valid: (b, p) bool.
  """

  boxes: jax.Array
  scores: jax.Array
  valid: jax.Array


def propose(
  logits: Sequence[jax.Array],
  deltas: Sequence[jax.Array],
  strides: Sequence[int],
  *,
  valid_hw: jax.Array,
  padded_hw: jax.Array | None = None,
  pre_nms: int = 1000,
  limit: int = 1000,
  threshold: float = 0.7,
  min_size: float = -1.0,
) -> Proposals:
  """The best boxes of all maps: the best of each are decoded, clipped to the image and sorted out by NMS.

  Args:
    logits: [(b, h, w, a), ...], that an anchor holds an object, of every map of the pyramid.
    deltas: [(b, h, w, a, 4), ...].
    strides: of the maps.
    valid_hw: (b, 2), the sizes of the images.
    padded_hw: (b, 2), with padding of their own: what lies beyond proposes nothing. None for all.
    pre_nms: how many anchors of each map go into NMS.
    limit: p.
    threshold: of the IoU in NMS.
    min_size: proposals without a larger width and height are dropped before NMS; below 0 none are.
  """
  anchors = pyramid_anchors([(x.shape[1], x.shape[2]) for x in logits], strides)
  largest = min(pre_nms, max(boxes.size // 4 for boxes in anchors))

  def of_map(
    logits: jax.Array, deltas: jax.Array, boxes: jax.Array, stride: int, valid_hw: jax.Array, padded_hw: Any
  ) -> tuple[jax.Array, ...]:
    """The boxes (m, 4), scores and validity (m,) that go into NMS, m = `largest`."""
    h, w, a = logits.shape
    inside = inside_positions(h, w, stride, padded_hw)[:, :, None]
    scores = jnp.where(inside, jax.nn.sigmoid(logits.astype(jnp.float32)), -1.0)
    scores, chosen = jax.lax.top_k(scores.reshape(-1), min(pre_nms, h * w * a))
    deltas = deltas.astype(jnp.float32).reshape(-1, 4)[chosen]
    boxes = decode_boxes(deltas, boxes.reshape(-1, 4)[chosen], hw=valid_hw)
    valid = scores >= 0
    if min_size >= 0:
      valid &= (boxes[:, 2:] - boxes[:, :2] > min_size).all(-1)
    missing = largest - len(scores)
    return tuple(jnp.pad(x, ((0, missing), *((0, 0),) * (x.ndim - 1))) for x in (boxes, scores, valid))

  def of_image(
    logits: list[jax.Array], deltas: list[jax.Array], valid_hw: jax.Array, padded_hw: Any
  ) -> Proposals:
    maps = [of_map(*of, valid_hw, padded_hw) for of in zip(logits, deltas, anchors, strides, strict=True)]
    boxes, scores, valid = map(jnp.stack, zip(*maps, strict=True))
    keep = functools.partial(nms, threshold=threshold, limit=min(limit, largest))
    indices, kept = jax.vmap(lambda *of: keep(of[0], of[1], valid=of[2]))(boxes, scores, valid)
    boxes = jnp.take_along_axis(boxes, indices[..., None], 1).reshape(-1, 4)
    scores = jnp.where(kept, jnp.take_along_axis(scores, indices, 1), -1.0).reshape(-1)
    missing = max(limit - len(scores), 0)  # where all maps together have too few anchors
    scores, chosen = jax.lax.top_k(jnp.pad(scores, (0, missing), constant_values=-1.0), limit)
    valid = scores >= 0
    boxes = jnp.where(valid[:, None], jnp.pad(boxes, ((0, missing), (0, 0)))[chosen], 0.0)
    return Proposals(boxes, jnp.where(valid, scores, 0.0), valid)

  logits, deltas = jax.lax.stop_gradient((list(logits), list(deltas)))
  in_axes = 0, 0, 0, None if padded_hw is None else 0
  return jax.vmap(of_image, in_axes)(logits, deltas, valid_hw, padded_hw)
