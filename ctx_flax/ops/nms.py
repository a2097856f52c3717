"""Non-maximum suppression with fixed shapes, exactly the greedy one.

Letters: n boxes, m classes. One image; jax.vmap for more images or for the levels of a pyramid.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ctx_flax.ops.boxes import box_iou, checked_boxes


class MulticlassDetections(NamedTuple):
  """Detections by falling score; rows in which `kept` is false are zero.

  Attributes:
    boxes: (limit, 4).
    scores: (limit,).
    labels: (limit,) int32.
    rows: (limit,) int32: which of the n boxes it was.
    kept: (limit,) bool: whether the row is a detection.
    overflow: () bool: there were more candidates than places for them and fewer than `limit` survived, so that a
      candidate that was left out might be missing.
  """

  boxes: jax.Array
  scores: jax.Array
  labels: jax.Array
  rows: jax.Array
  kept: jax.Array
  overflow: jax.Array


def nms(
  boxes: jax.Array,
  scores: jax.Array,
  *,
  threshold: float,
  limit: int,
  groups: jax.Array | None = None,
  valid: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Keeps each box that overlaps no kept box of a higher score by more than a threshold.

  Equal scores go by index. Boxes with an IoU of exactly the threshold do not suppress each other, nor do boxes
  without area. Boxes whose score is NaN are not kept and suppress nothing. No gradient passes.

  Args:
    boxes: (n, 4).
    scores: (n,).
    threshold: of the IoU.
    limit: how many boxes are kept at most: the first ones.
    groups: (n,) integers, such as labels or levels: boxes of different groups do not suppress each other.
    valid: (n,) bool; other boxes do not take part.

  Returns:
    indices: (limit,) int32 of the kept boxes by falling score, 0 where there is none.
    kept: (limit,) bool.

  Raises:
    ValueError: a wrong shape or dtype, naming the argument; `limit` below 1.
  """
  boxes = jax.lax.stop_gradient(checked_boxes('boxes', boxes, 2))
  n = len(boxes)
  for name, array in (('scores', scores), ('groups', groups), ('valid', valid)):
    if array is not None and jnp.shape(array) != (n,):
      raise ValueError(f'{name} has shape {jnp.shape(array)}; expected (n,) = ({n},), one for each box')
  if limit < 1:
    raise ValueError(f'limit={limit}: expected at least 1')
  scores = jax.lax.stop_gradient(jnp.asarray(scores))
  usable = ~jnp.isnan(scores) if valid is None else valid & ~jnp.isnan(scores)
  order = jnp.argsort(jnp.where(usable, scores, -jnp.inf), stable=True, descending=True)
  boxes, usable = boxes[order], usable[order]
  suppresses = (box_iou(boxes, boxes) > threshold) & jnp.triu(jnp.ones((n, n), bool), 1)
  if groups is not None:
    groups = jnp.asarray(groups)[order]
    suppresses &= groups[:, None] == groups[None]
  return _first(order, _greedy(suppresses, usable), limit)


def _greedy(suppresses: jax.Array, usable: jax.Array) -> jax.Array:
  """Which boxes, sorted by falling score, greedy suppression keeps: (n,) bool.

  It is the only fixpoint of 'usable and not suppressed by a kept one before it': the first box is right after one
  sweep, each other one sweep after all before it. A few sweeps do in practice, as chains of suppression are short.
  """

  def sweep(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    kept, _ = state
    new = usable & ~jnp.any(suppresses & kept[:, None], 0)
    return new, jnp.any(new != kept)

  return jax.lax.while_loop(lambda state: state[1], sweep, (usable, jnp.array(True)))[0]


def _first(order: jax.Array, kept: jax.Array, limit: int) -> tuple[jax.Array, jax.Array]:
  """The first `limit` of `order` (n,) that are kept, and in which places there is one."""
  place = jnp.where(kept, jnp.cumsum(kept) - 1, limit)
  indices = jnp.zeros(limit, jnp.int32).at[place].set(order.astype(jnp.int32), mode='drop')
  return indices, jnp.arange(limit) < jnp.sum(kept)


def multiclass_nms(
  boxes: jax.Array,
  scores: jax.Array,
  *,
  score_threshold: float,
  threshold: float,
  limit: int,
  candidates: int = 4096,
  valid: jax.Array | None = None,
) -> MulticlassDetections:
  """What a detector answers: NMS within each class, then the best of all classes.

  As in MMDetection, each pair of a box and a class is a candidate if its score is above `score_threshold`, so one
  box may become several detections.

  Args:
    boxes: (n, 4), or (n, m, 4) with a box for each class.
    scores: (n, m), without the background.
    score_threshold: candidates have a higher score.
    threshold: of the IoU in the NMS.
    limit: how many detections there are at most.
    candidates: how many candidates take part at most, those with the highest scores. The result is exact unless
      `overflow` says otherwise: only higher scores suppress.
    valid: (n,) bool; other boxes do not take part.

  Raises:
    ValueError: a wrong shape or dtype, naming the argument; `limit` or `candidates` below 1.
  """
  if jnp.ndim(scores) != 2:
    raise ValueError(f'scores has shape {jnp.shape(scores)}; expected (n, m)')
  n, m = jnp.shape(scores)
  boxes = jax.lax.stop_gradient(checked_boxes('boxes', boxes))
  if boxes.shape not in ((n, 4), (n, m, 4)):
    raise ValueError(
      f'boxes has shape {boxes.shape}; expected ({n}, 4) or ({n}, {m}, 4), as scores is {(n, m)}'
    )
  if candidates < 1:
    raise ValueError(f'candidates={candidates}: expected at least 1')
  if valid is not None and jnp.shape(valid) != (n,):
    raise ValueError(f'valid has shape {jnp.shape(valid)}; expected (n,) = ({n},), one for each box')
  scores = jax.lax.stop_gradient(jnp.asarray(scores))
  passes = scores > score_threshold
  if valid is not None:
    passes &= valid[:, None]
  best, chosen = jax.lax.top_k(jnp.where(passes, scores, -jnp.inf).reshape(n * m), min(candidates, n * m))
  rows, labels = chosen // m, chosen % m
  boxes = boxes[rows] if boxes.ndim == 2 else boxes.reshape(n * m, 4)[chosen]
  takes_part = passes.reshape(n * m)[chosen]
  indices, kept = nms(boxes, best, threshold=threshold, limit=limit, groups=labels, valid=takes_part)
  overflow = (jnp.sum(passes) > candidates) & ~kept[-1]

  def pick(array: jax.Array) -> jax.Array:
    mask = kept.reshape(limit, *(1,) * (array.ndim - 1))
    return jnp.where(mask, array[indices], jnp.zeros((), array.dtype))

  return MulticlassDetections(*(pick(a) for a in (boxes, best, labels, rows)), kept, overflow)
