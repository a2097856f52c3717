"""The taps of a one-step contextual convolution, one after the other, as its sum and its gradients need them.

Axes: b images, h w input grid, u v output grid, k taps, c channels. Shapes for one tap: points (b, u, v, 2),
mask (b, u, v), pixels (b, h * w, c).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.ops.bilinear import CORNERS, IN_BOUNDS, PROMISED, Two, corner_weight, corners_at, gather
from ctx_flax.ops.geometry import Window, sampling_points


def flatten(x: jax.Array) -> jax.Array:
  """(b, h, w, c) -> pixels (b, h * w, c)."""
  b, h, w, c = x.shape
  return x.reshape(b, h * w, c)


def taps_first(
  offsets: jax.Array, mask: jax.Array, window: Window, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array]:
  """Points (k, b, u, v, 2) and mask (k, b, u, v): the loop over taps reads slices.

  Both in the dtype that the sums are kept in, so that the gradient rules meet one dtype beside that of x.
  """
  points = jnp.moveaxis(sampling_points(offsets, *window), 3, 0).astype(dtype)
  return points, jnp.moveaxis(mask.astype(points.dtype), 3, 0)


def kernel_of_tap(kernel: jax.Array, delta: jax.Array, number: jax.Array) -> jax.Array:
  """kernel (k, c) + delta (b, k, c) of one tap: (b, 1, 1, c). Added for all taps it would need memory."""
  own = jax.lax.dynamic_index_in_dim(delta, number, 1)
  return (jax.lax.dynamic_index_in_dim(kernel, number)[None] + own)[:, None]


# Traced once for all sums, gradients and platforms that read images of one shape.
@functools.partial(jax.jit, static_argnames='shape', inline=True)
def sample_tap(pixels: jax.Array, points: jax.Array, mask: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Modulated bilinear samples (b, u, v, c) of an image of the given shape (b, h, w, c)."""
  return sample_at(pixels, (points[..., 0], points[..., 1]), mask, shape, PROMISED)


def sample_at(
  pixels: jax.Array, points: Two, mask: jax.Array, shape: tuple[int, ...], how: Any = IN_BOUNDS
) -> jax.Array:
  """As `sample_tap`, of points as two arrays (b, u, v), y and x; how: as of `gather`."""
  index, fraction, inside = corners_at(*points, *shape[1:3])
  total: jax.Array | float = 0.0
  for corner in CORNERS:
    weight = mask * corner_weight(fraction, inside, corner)
    total = total + weight[..., None] * gather(pixels, index[corner], how)
  return jnp.asarray(total)
