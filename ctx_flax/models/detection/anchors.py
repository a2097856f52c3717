"""Anchors: the boxes at every position of a feature pyramid that a detector starts from.

Boxes are (x1, y1, x2, y2) in pixels of the image. As in MMDetection: position (i, j) of a map is at pixel
(i * stride, j * stride), without half a stride, the centre of boxes of 8 strides with h / w = 1/2, 1, 2.
The anchors of a map are ordered by row, column and ratio.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

RATIOS = 0.5, 1.0, 2.0  # height over width
SCALE = 8  # side of a square anchor in strides


def base_anchors(stride: int) -> np.ndarray:
  """The anchors (3, 4) of position (0, 0)."""
  root = np.sqrt(np.asarray(RATIOS, np.float32))
  half_w, half_h = np.float32(stride * SCALE / 2) / root, np.float32(stride * SCALE / 2) * root
  return np.stack([-half_w, -half_h, half_w, half_h], -1)


def pyramid_anchors(sizes: Sequence[tuple[int, int]], strides: Sequence[int]) -> list[jax.Array]:
  """The anchors of every map.

  Args:
    sizes: (h, w) of each map.
    strides: pixels per position of each map.

  Returns:
    [(h, w, 3, 4) float32, ...]
  """
  return [_map_anchors(h, w, stride) for (h, w), stride in zip(sizes, strides, strict=True)]


def _map_anchors(h: int, w: int, stride: int) -> jax.Array:
  y = jnp.broadcast_to(jnp.arange(h, dtype=jnp.float32)[:, None] * stride, (h, w))
  x = jnp.broadcast_to(jnp.arange(w, dtype=jnp.float32)[None] * stride, (h, w))
  return jnp.stack([x, y, x, y], -1)[:, :, None] + base_anchors(stride)[None, None]


def inside_positions(h: int, w: int, stride: int, padded_hw: jax.Array | None) -> jax.Array:
  """Which positions of a map lie in the image and padding of its own: (h, w) bool; padded_hw (2,)."""
  if padded_hw is None:
    return jnp.ones((h, w), bool)
  rows, columns = -(-padded_hw // stride)
  return (jnp.arange(h) < rows)[:, None] & (jnp.arange(w) < columns)[None]


def valid_anchors(
  anchors: Sequence[jax.Array],
  strides: Sequence[int],
  *,
  padded_hw: jax.Array | None = None,
  valid_hw: jax.Array | None = None,
  allowed_border: int = -1,
) -> list[jax.Array]:
  """Which anchors of one image take part in training.

  Args:
    anchors: [(h, w, 3, 4), ...] of the maps.
    strides: of the maps.
    padded_hw: (2,), the image's size with its own padding: positions beyond it have no anchors. None for all.
    valid_hw: (2,), the image's own size; needed if there is a border.
    allowed_border: by how many pixels an anchor may reach out of the image; below 0 any number.

  Returns:
    [(h, w, 3) bool, ...]

  Raises:
    ValueError: a border without the size of the image.
  """
  if allowed_border >= 0 and valid_hw is None:
    raise ValueError(f'allowed_border={allowed_border} needs valid_hw, the size of the image: (2,)')
  valid = []
  for boxes, stride in zip(anchors, strides, strict=True):
    h, w, a, _ = boxes.shape
    inside = jnp.broadcast_to(inside_positions(h, w, stride, padded_hw)[:, :, None], (h, w, a))
    if allowed_border >= 0 and valid_hw is not None:
      inside &= (boxes[..., :2] >= -allowed_border).all(-1)
      bottom, right = valid_hw + allowed_border
      inside &= (boxes[..., 2] < right) & (boxes[..., 3] < bottom)
    valid.append(inside)
  return valid
