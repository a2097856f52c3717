"""Non-maximum suppression with fixed shapes, exactly the greedy one.

Letters: n boxes, m classes. One image; jax.vmap for more images or for the levels of a pyramid.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ctx_flax.ops.boxes import box_iou, checked_boxes

# Boxes that are compared with each other at once. A CPU is fastest with few, as boxes that are suppressed
# early are not compared any more; on accelerators the time goes into launching what one turn consists of.
AT_ONCE = {'cpu': 32, 'default': 2048}


class MulticlassDetections(NamedTuple):
  """Detections by falling score; where `kept` is false, a row is zero.

  Attributes:
    boxes: (limit, 4).
    scores: (limit,).
    labels: (limit,) int32.
    rows: (limit,) int32: which of the n boxes it is.
    kept: (limit,) bool: whether the row is a detection.
    overflow: () bool: more candidates than could take part, and fewer than `limit` of those that did were
      kept: one that was left out may be missing.
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
  """Keeps every box that no kept box of a higher score overlaps by more than a threshold.

  Of equal scores the lower index comes first. An IoU of exactly the threshold does not suppress, nor do two
  boxes without area. A box whose score is NaN is not kept and suppresses nothing. No gradient passes.

  Args:
    boxes: (n, 4).
    scores: (n,).
    threshold: of the IoU.
    limit: how many boxes are returned at most: those with the highest scores.
    groups: (n,) integers, such as labels: boxes of different groups do not suppress each other.
    valid: (n,) bool; other boxes are treated like those whose score is NaN.

  Returns:
    indices: (limit,) int32, the kept boxes by falling score; 0 where there are no more.
    kept: (limit,) bool, false where there are no more.

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
  usable = ~jnp.isnan(scores) if valid is None else jnp.asarray(valid) & ~jnp.isnan(scores)
  order = jnp.argsort(jnp.where(usable, scores, -jnp.inf), stable=True, descending=True)
  # Labels are compared. Moving each group's boxes to a place of their own, as mmcv and torchvision do, rounds
  # them.
  groups = jnp.zeros(n, jnp.int32) if groups is None else jnp.asarray(groups)
  arrays = boxes[order], groups[order], usable[order], jnp.asarray(threshold, boxes.dtype)
  turns = {where: functools.partial(_greedy, limit, min(n, at_once)) for where, at_once in AT_ONCE.items()}
  kept = jax.lax.platform_dependent(*arrays, **turns)
  place = jnp.where(kept, jnp.cumsum(kept) - 1, limit)
  indices = jnp.zeros(limit, jnp.int32).at[place].set(order.astype(jnp.int32), mode='drop')
  return indices, jnp.arange(limit) < jnp.sum(kept)


def _greedy(
  limit: int, at_once: int, boxes: jax.Array, groups: jax.Array, alive: jax.Array, threshold: jax.Array
) -> jax.Array:
  """Which boxes (n, 4), sorted by falling score, are kept: (n,) bool, right for the first `limit` of them.

  A turn takes the first boxes that nothing has suppressed so far, decides between them, and suppresses what
  the kept ones overlap. What is suppressed is never compared again.
  """
  n = len(boxes)

  def turn(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    kept, alive = state
    place = jnp.where(alive, jnp.cumsum(alive) - 1, n)
    taken = jnp.full(at_once, n).at[place].set(jnp.arange(n), mode='drop')  # n where no more are alive
    some, group = (array.at[taken].get(mode='fill', fill_value=0) for array in (boxes, groups))
    inside = _suppresses(some, group, some, group, threshold) & jnp.triu(
      jnp.ones((at_once, at_once), bool), 1
    )
    keep = _fixpoint(inside, taken < n)
    suppressed = jnp.any(_suppresses(some, group, boxes, groups, threshold) & keep[:, None], 0)
    kept = kept.at[jnp.where(keep, taken, n)].set(True, mode='drop')
    return kept, alive & (place >= at_once) & ~suppressed

  def unfinished(state: tuple[jax.Array, jax.Array]) -> jax.Array:
    kept, alive = state
    return jnp.any(alive) & (jnp.sum(kept) < limit)

  return jax.lax.while_loop(unfinished, turn, (jnp.zeros_like(alive), alive))[0]


def _suppresses(
  boxes: jax.Array, groups: jax.Array, others: jax.Array, other_groups: jax.Array, threshold: jax.Array
) -> jax.Array:
  return (box_iou(boxes, others) > threshold) & (groups[:, None] == other_groups[None])


def _fixpoint(suppresses: jax.Array, usable: jax.Array) -> jax.Array:
  """Which boxes greedy suppression keeps: (n,) bool, of suppresses[i, j] with i before j.

  They are the only solution of 'usable, and suppressed by no kept one before': whatever it begins with, the
  k-th sweep decides rightly on the k-th box. Chains of suppression are short, so that a few sweeps do.
  """

  def sweep(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    kept, _ = state
    new = usable & ~jnp.any(suppresses & kept[:, None], 0)
    return new, jnp.any(new != kept)

  return jax.lax.while_loop(lambda state: state[1], sweep, (usable, jnp.array(True)))[0]


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
  """The detections of an image: NMS within each class, then the best of all classes.

  As in MMDetection: every pair of a box and a class with a score above `score_threshold` is a candidate, so
  one box may become several detections.

  Args:
    boxes: (n, 4), or (n, m, 4) with a box for each class.
    scores: (n, m), without the background.
    score_threshold: of a candidate's score, exclusive.
    threshold: of the IoU.
    limit: how many detections there are at most.
    candidates: how many candidates take part at most, those with the highest scores. As only higher scores
      suppress, the result is exact unless `overflow` is set.
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
      f'boxes has shape {boxes.shape}; expected ({n}, 4) or ({n}, {m}, 4) with scores {(n, m)}'
    )
  if valid is not None and jnp.shape(valid) != (n,):
    raise ValueError(f'valid has shape {jnp.shape(valid)}; expected (n,) = ({n},), one for each box')
  if candidates < 1:
    raise ValueError(f'candidates={candidates}: expected at least 1')
  scores = jax.lax.stop_gradient(jnp.asarray(scores))
  passes = scores > score_threshold
  if valid is not None:
    passes &= jnp.asarray(valid)[:, None]
  best, pairs = jax.lax.top_k(jnp.where(passes, scores, -jnp.inf).reshape(n * m), min(candidates, n * m))
  rows, labels = pairs // m, pairs % m
  boxes = boxes[rows] if boxes.ndim == 2 else boxes.reshape(n * m, 4)[pairs]
  takes_part = jnp.arange(len(pairs)) < jnp.sum(passes)
  indices, kept = nms(boxes, best, threshold=threshold, limit=limit, groups=labels, valid=takes_part)

  def pick(array: jax.Array) -> jax.Array:
    mask = kept.reshape(limit, *(1,) * (array.ndim - 1))
    return jnp.where(mask, array[indices], jnp.zeros((), array.dtype))

  overflow = (jnp.sum(passes) > candidates) & ~kept[-1]
  return MulticlassDetections(pick(boxes), pick(best), pick(labels), pick(rows), kept, overflow)
