"""Bilinear sampling with zeros outside the image.

Axes: b images, h w input grid, c channels. Points are (y, x) in pixels; pixel centres lie on integers.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.ops.geometry import at_least_float32, check_shape

Corner = tuple[int, int]
Two = tuple[jax.Array, jax.Array]
# How to index with what is known to be right. IN_BOUNDS compares nothing and counts nothing from the end; on
# a CPU XLA then fuses less and needs up to 6 % more memory for a contextual gradient.
PROMISED: Any = {'mode': 'promise_in_bounds'}
IN_BOUNDS: Any = {**PROMISED, 'wrap_negative_indices': False}
CORNERS: tuple[Corner, ...] = ((0, 0), (0, 1), (1, 0), (1, 1))


def bilinear_sample(image: jax.Array, points: jax.Array) -> jax.Array:
  """Samples an image at fractional positions.

  out[b, ..., c] = sum over the four pixels (i, j) around the point of
  (1 - |y - i|) (1 - |x - j|) image[b, i, j, c], each pixel outside the image counting as zero.

  The gradient with respect to a point that lies exactly on a pixel is the one-sided difference
  towards the next pixel, image[y + 1] - image[y]: a freshly initialised deformable convolution
  samples on pixels only, and the symmetric 'tent' gradient, zero there, would never move it.

  Args:
    image: (b, h, w, c), floating.
    points: (b, ..., 2) positions (y, x). Points far outside and infinite ones give zero, NaN gives NaN.

  Returns:
    (b, ..., c) in the dtype of `image`; interpolated in at least float32.

  Raises:
    ValueError: a wrong shape or dtype, naming the argument.

  Reference: https://arxiv.org/abs/1703.06211, equations 3 and 4.
  """
  check_shape('image', image, 'b h w c', (None, None, None, None))
  b, h, w, c = image.shape
  middle = (None,) * max(jnp.ndim(points) - 2, 0)
  check_shape('points', points, ' '.join(('b', *('p',) * len(middle), '2')), (b, *middle, 2))
  pixels = image.reshape(b, h * w, c)
  index, fraction, inside = corners(points, h, w)
  value: jax.Array | float = 0.0
  for corner in CORNERS:
    value = value + corner_weight(fraction, inside, corner)[..., None] * gather(pixels, index[corner])
  return jnp.asarray(value).astype(image.dtype)


# Traced once for all points of one shape.
@functools.partial(jax.jit, static_argnames=('h', 'w'), inline=True)
def corners(points: jax.Array, h: int, w: int) -> tuple[dict[Corner, jax.Array], Two, tuple[Two, Two]]:
  """The four pixels around each point.

  Args:
    points: (..., 2).

  Returns:
    index: {corner: (...) int32 position in the flattened h * w grid, always a valid one}.
    fraction: (y, x), each (...): distance of the point from its upper left corner, in [0, 1).
    inside: ((y0, y1), (x0, x1)), each (...) 0. or 1.: whether that row or column is inside the image.
  """
  points = points.astype(at_least_float32(points.dtype))
  return corners_at(points[..., 0], points[..., 1], h, w)


def corners_at(
  y: jax.Array, x: jax.Array, h: int, w: int
) -> tuple[dict[Corner, jax.Array], Two, tuple[Two, Two]]:
  """As `corners`, of points as two arrays (...), float32 or wider."""
  rows, y, inside_y = _neighbours(y, h)
  columns, x, inside_x = _neighbours(x, w)
  index = {(i, j): rows[i] * w + columns[j] for i, j in CORNERS}
  return index, (y, x), (inside_y, inside_x)


def _neighbours(position: jax.Array, size: int) -> tuple[Two, jax.Array, Two]:
  """Of one coordinate: the pixels on both sides, the distance from the first, whether they are inside."""
  dtype = position.dtype
  # Two pixels outside every corner is zero already; clipping keeps the integer cast defined.
  position = jnp.clip(position, -2.0, size + 1.0)
  first = jax.lax.stop_gradient(jnp.floor(position))
  fraction = position - first
  first = first.astype(jnp.int32)
  second = first + 1
  before, after = (((n >= 0) & (n < size)).astype(dtype) for n in (first, second))
  return (jnp.clip(first, 0, size - 1), jnp.clip(second, 0, size - 1)), fraction, (before, after)


def corner_weight(fraction: Two, inside: tuple[Two, Two], corner: Corner) -> jax.Array:
  """Interpolation weight (...) of one corner; zero outside the image, NaN where the point is NaN."""
  (y, x), (i, j) = fraction, corner
  return (y if i else 1 - y) * inside[0][i] * (x if j else 1 - x) * inside[1][j]


def gather(pixels: jax.Array, index: jax.Array, how: Any = PROMISED) -> jax.Array:
  """pixels (b, h * w, c) at index (b, ...) -> (b, ..., c), at least float32; how: PROMISED or IN_BOUNDS."""
  picked = jax.vmap(lambda p, i: p.at[i].get(**how))(pixels, index)
  return picked.astype(at_least_float32(picked.dtype))
