"""Boxes: overlap, the coding of one box relative to another, clipping.

A box is (x1, y1, x2, y2) in pixels, its width x2 - x1. Letters: n, m boxes. Everything is computed in at
least float32: bfloat16 has 8 bits, which at 1,000 pixels is 4 pixels.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.ops.geometry import at_least_float32

MAX_RATIO = 1000 / 16


def box_iou(a: jax.Array, b: jax.Array, *, eps: float = 0.0) -> jax.Array:
  """Intersection over union of all pairs.

  Args:
    a: (n, 4).
    b: (m, 4).
    eps: what the union is at least. With 0 two boxes without area have 0 / 0, which is NaN and greater than
      no threshold: so the NMS of torchvision and mmcv has it. MMDetection's assignment has 1e-6.

  Returns:
    (n, m) in [0, 1].

  Raises:
    ValueError: a wrong shape or dtype, naming the argument.
  """
  a, b = checked_boxes('a', a, 2), checked_boxes('b', b, 2)
  overlap, union = _overlap_and_union(a[:, None], b[None])
  return overlap / jnp.maximum(union, eps)


def generalised_box_iou(a: jax.Array, b: jax.Array, *, eps: float = 1e-7) -> jax.Array:
  """Generalised intersection over union of pairs: IoU - (hull - union) / hull, hull the box around both.

  The loss of Rezatofighi et al. (CVPR 2019) is one minus it. Values and gradients are those of MMDetection,
  odd boxes included: a box whose corners are exchanged has a positive area and no overlap.

  Args:
    a, b: (..., 4).
    eps: what union and hull are at least.

  Returns:
    (...) in [-1, 1].

  Raises:
    ValueError: a wrong shape or dtype, naming the argument.
  """
  a, b = checked_boxes('a', a), checked_boxes('b', b)
  _check_equal_shapes('a', a, 'b', b)
  overlap, union = _overlap_and_union(a, b)
  union = jnp.maximum(union, eps)
  size = _not_negative(jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2]))
  hull = jnp.maximum(size[..., 0] * size[..., 1], eps)
  return overlap / union - (hull - union) / hull


def encode_boxes(
  boxes: jax.Array, targets: jax.Array, *, stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
) -> jax.Array:
  """What `decode_boxes` has to be given to make of each box its target.

  (dx, dy) is the distance of the centres in widths and heights of the box, (dw, dh) the logarithm of the
  relation of the sizes; all over `stds`. As in Faster R-CNN (Ren et al., NeurIPS 2015) and MMDetection.

  Args:
    boxes: (..., 4), where from: anchors or proposals.
    targets: (..., 4), where to.
    stds: of (dx, dy, dw, dh).

  Returns:
    (..., 4). Boxes or targets without width or height give infinities or NaN.

  Raises:
    ValueError: a wrong shape or dtype, or other than four positive `stds`.
  """
  boxes, targets = checked_boxes('boxes', boxes), checked_boxes('targets', targets)
  _check_equal_shapes('boxes', boxes, 'targets', targets)
  (centre, size), (to_centre, to_size) = _centre_and_size(boxes), _centre_and_size(targets)
  deltas = jnp.concatenate([(to_centre - centre) / size, jnp.log(to_size / size)], -1)
  return deltas / _as_row(stds, deltas)


def decode_boxes(
  deltas: jax.Array,
  boxes: jax.Array,
  *,
  stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
  hw: Any = None,
  max_ratio: float = MAX_RATIO,
) -> jax.Array:
  """Boxes moved and scaled by what a network says: the inverse of `encode_boxes`.

  dw and dh are clipped on both sides, as MMDetection does; torchvision clips large ones alone.

  Args:
    deltas: (..., 4), (dx, dy, dw, dh).
    boxes: (..., 4) of as many axes; axes of size 1 are repeated, such as for the classes of one box.
    stds: of (dx, dy, dw, dh).
    hw: the image's (h, w) to clip to, numbers or an array (2,); None does not clip.
    max_ratio: how many times larger or smaller a side may become.

  Returns:
    (..., 4).

  Raises:
    ValueError: a wrong shape or dtype, or other than four positive `stds`.
  """
  deltas, boxes = checked_boxes('deltas', deltas), checked_boxes('boxes', boxes)
  if deltas.ndim != boxes.ndim:
    raise ValueError(f'boxes has shape {boxes.shape} and deltas {deltas.shape}: expected as many axes')
  if not max_ratio > 1:
    raise ValueError(f'max_ratio={max_ratio}: expected more than 1')
  deltas = deltas * _as_row(stds, deltas)
  limit = math.log(max_ratio)
  centre, size = _centre_and_size(boxes)
  centre = centre + size * deltas[..., :2]
  half = 0.5 * size * jnp.exp(jnp.clip(deltas[..., 2:], -limit, limit))
  decoded = jnp.concatenate([centre - half, centre + half], -1)
  return decoded if hw is None else clip_boxes(decoded, hw)


def clip_boxes(boxes: jax.Array, hw: Any) -> jax.Array:
  """Boxes cut at the borders of an image.

  Args:
    boxes: (..., 4).
    hw: the image's (h, w), numbers or an array (2,), which may be traced.

  Returns:
    (..., 4), x in [0, w] and y in [0, h]. What lies outside becomes a box without area on the border.

  Raises:
    ValueError: a wrong shape or dtype.
  """
  boxes = checked_boxes('boxes', boxes)
  hw = jnp.asarray(hw, boxes.dtype)
  if hw.shape != (2,):
    raise ValueError(f'hw has shape {hw.shape}; expected (2,): the height and the width of one image')
  border = hw[jnp.array([1, 0, 1, 0])].reshape(*(1,) * (boxes.ndim - 1), 4)
  return jnp.clip(boxes, 0, border)


def checked_boxes(name: str, boxes: Any, ndim: int | None = None) -> jax.Array:
  """Boxes in at least float32; ValueError unless they are floating and their last axis has size 4."""
  shape, dtype = jnp.shape(boxes), jnp.result_type(boxes)
  if not shape or shape[-1] != 4 or ndim not in (None, len(shape)):
    expected = '(..., 4)' if ndim is None else f'({", ".join("nm"[: ndim - 1])}, 4)'
    raise ValueError(f'{name} has shape {shape}; expected {expected}')
  if not jnp.issubdtype(dtype, jnp.floating):
    raise ValueError(f'{name} has dtype {dtype}; expected a floating dtype')
  return jnp.asarray(boxes).astype(at_least_float32(dtype))


def _check_equal_shapes(name: str, boxes: jax.Array, other: str, others: jax.Array) -> None:
  if boxes.shape != others.shape:
    raise ValueError(f'{other} has shape {others.shape}; expected that of {name}, {boxes.shape}')


def _as_row(stds: Sequence[float], deltas: jax.Array) -> jax.Array:
  if len(stds) != 4 or not all(std > 0 for std in stds):
    raise ValueError(f'stds={stds}: expected four positive numbers')
  return jnp.asarray(stds, deltas.dtype).reshape(*(1,) * (deltas.ndim - 1), 4)


def _centre_and_size(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
  first, last = boxes[..., :2], boxes[..., 2:]
  return (first + last) * 0.5, last - first


def _not_negative(x: jax.Array) -> jax.Array:
  # At 0 the whole gradient, as PyTorch's clamp; jnp.maximum and jnp.clip halve it.
  return jnp.where(x >= 0, x, 0)


def _overlap_and_union(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
  # Coordinate by coordinate, not on arrays (..., 2): a last axis of 2 makes slow loops, on CPUs many times.
  a_sides, b_sides = ([boxes[..., i] for i in range(4)] for boxes in (a, b))
  w = _not_negative(jnp.minimum(a_sides[2], b_sides[2]) - jnp.maximum(a_sides[0], b_sides[0]))
  h = _not_negative(jnp.minimum(a_sides[3], b_sides[3]) - jnp.maximum(a_sides[1], b_sides[1]))
  overlap = w * h
  area_a, area_b = ((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a_sides, b_sides))
  return overlap, area_a + area_b - overlap
