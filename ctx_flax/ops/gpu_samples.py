"""Which pixels the taps of some images read, and the gradients of offsets and masks: for accelerators.

The four corners are an axis of one array, so that XLA makes one kernel of them all. Axes: n images of a turn,
h w input grid, u v output grid, k taps, p positions (u * v), c channels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Layout, with_layout_constraint

from ctx_flax.ops.bilinear import CORNERS, Two
from ctx_flax.ops.geometry import Pair, Window, tap_positions

BELOW, RIGHT = np.array(CORNERS, np.int32).T  # 1 where a corner is below the point, and to the right of it


class Samples(NamedTuple):
  """The four pixels around every point; (...) is (n, p, k), or (k, n, p) where taps come first.

  Attributes:
    rows: int32 (4, ...), of the pixels (b * h * w, c) of all images.
    weights: (4, ...), interpolation weight times mask, zero outside.
    points: y and x, (...) each.
    mask: (...).
  """

  rows: jax.Array
  weights: jax.Array
  points: Two
  mask: jax.Array


def samples_of(
  offsets: jax.Array,
  mask: jax.Array,
  first: jax.Array,
  hw: Pair,
  window: Window,
  dtype: jnp.dtype,
  *,
  taps_first: bool,
) -> Samples:
  """The samples of images `first`, `first` + 1, ...: offsets (n, u, v, k, 2) and mask (n, u, v, k).

  A scatter of samples with their taps first hits a pixel again only after a while.
  """
  n, _, _, k = mask.shape
  image, order = (1, n, 1, 1), lambda array: array.reshape(n, -1, k)
  if taps_first:
    image, order = (1, 1, n, 1), lambda array: jnp.moveaxis(array, -1, 0).reshape(k, n, -1)
  y, x = (order(point) for point in moved_taps(offsets, window, dtype))
  mask = order(mask.astype(dtype))
  pixels, (wy, wx), inside = _neighbours(y, x, hw)
  first_pixel = (first + jnp.arange(n, dtype=jnp.int32)).reshape(image) * (hw[0] * hw[1])
  weights = wy * inside[0] * wx * inside[1] * mask[None]
  # Else they are computed again for every channel.
  rows, weights = jax.lax.optimization_barrier((pixels + first_pixel, weights))
  return Samples(rows, weights, (y, x), mask)


def moved_taps(offsets: jax.Array, window: Window, dtype: jnp.dtype) -> Two:
  """y and x (n, u, v, k) of all points of offsets (n, u, v, k, 2). As one array XLA would keep them."""
  u, v, k = offsets.shape[1:4]
  rows, columns = np.arange(u).reshape(1, -1, 1, 1), np.arange(v).reshape(1, 1, -1, 1)
  y, x = tap_positions(rows, columns, np.arange(k).reshape(1, 1, 1, -1), window)
  return offsets[..., 0].astype(dtype) + y.astype(dtype), offsets[..., 1].astype(dtype) + x.astype(dtype)


def sampling_gradients(along: jax.Array, samples: Samples, hw: Pair, dtype: jnp.dtype) -> jax.Array:
  """Gradients of y, x and mask, (3, ...): as one array, which a loop writes by one kernel.

  Args:
    along: (4, ...), the products of pixels and cotangents of samples, summed over the channels.
    samples: where that was.
    hw: size of the input grid.
    dtype: of the result.
  """
  _, (wy, wx), (inside_y, inside_x) = _neighbours(*samples.points, hw)
  visible = along * inside_y * inside_x
  below, right = (2 * _corners(side).astype(along.dtype) - 1 for side in (BELOW, RIGHT))  # -1 or 1: slopes
  of_y, of_x = (samples.mask * jnp.sum(visible * slope, 0) for slope in (below * wx, right * wy))
  return row_major(jnp.stack([of_y, of_x, jnp.sum(visible * wy * wx, 0)]).astype(dtype))


def in_shape_of(
  offsets: jax.Array, mask: jax.Array, gradients: jax.Array, *, taps_first: bool
) -> tuple[jax.Array, jax.Array]:
  """Gradients of all turns (turns, 3, ...) as those of offsets (b, u, v, k, 2) and mask (b, u, v, k)."""
  axes = ((1, 2), (4, 3)) if taps_first else (1, 4)
  last = jnp.moveaxis(gradients, *axes).reshape(*mask.shape, 3)
  return last[..., :2].astype(offsets.dtype), last[..., 2].astype(mask.dtype)


def row_major(array: jax.Array) -> jax.Array:
  """The array with its last axis innermost in memory, which XLA else decides by what comes after a loop.

  A sum over positions that was to be transposed kept all that it had gathered: 1.4 instead of 0.2 GB. For
  gradients only: jax.export refuses programs that say such a thing.
  """
  return with_layout_constraint(array, Layout(tuple(range(array.ndim))))


def _neighbours(y: jax.Array, x: jax.Array, hw: Pair) -> tuple[jax.Array, Two, Two]:
  """The pixels around points y and x, (...) each.

  Returns:
    pixels: int32 (4, ...), always valid ones, in the flattened grid of an image.
    weights: along y and along x, (4, ...) each.
    inside: along y and along x, 0. or 1.
  """
  rows, wy, inside_y = _of_one_axis(y, hw[0], _corners(BELOW))
  columns, wx, inside_x = _of_one_axis(x, hw[1], _corners(RIGHT))
  return rows * hw[1] + columns, (wy, wx), (inside_y, inside_x)


def _of_one_axis(
  position: jax.Array, size: int, second: np.ndarray
) -> tuple[jax.Array, jax.Array, jax.Array]:
  # As in bilinear.py, where each step is explained.
  position = jnp.clip(position[None], -2.0, size + 1.0)
  lower = jnp.floor(position)
  fraction = position - lower
  pixel = lower.astype(jnp.int32) + second
  inside = ((pixel >= 0) & (pixel < size)).astype(position.dtype)
  weight = jnp.where(second == 1, fraction, 1 - fraction)
  return jnp.clip(pixel, 0, size - 1), weight, inside


def _corners(array: np.ndarray) -> np.ndarray:
  return array.reshape(4, 1, 1, 1)
