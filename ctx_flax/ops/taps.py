"""One tap of a one-step contextual convolution, as its sum and its gradients need it.

Axes: b images, h w input grid, u v output grid, k taps, c channels. Shapes: points (b, u, v, 2), mask
(b, u, v), pixels (b, h * w, c).
"""

import jax
import jax.numpy as jnp

from ctx_flax.ops.bilinear import CORNERS, corner_weight, corners, gather


def flatten(x: jax.Array) -> jax.Array:
  """(b, h, w, c) -> pixels (b, h * w, c)."""
  b, h, w, c = x.shape
  return x.reshape(b, h * w, c)


def kernel_of_tap(kernel: jax.Array, delta: jax.Array, number: jax.Array) -> jax.Array:
  """kernel (k, c) + delta (b, k, c) of one tap: (b, 1, 1, c). Added for all taps it would need memory."""
  own = jax.lax.dynamic_index_in_dim(delta, number, 1)
  return (jax.lax.dynamic_index_in_dim(kernel, number)[None] + own)[:, None]


def sample_tap(pixels: jax.Array, points: jax.Array, mask: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Modulated bilinear samples (b, u, v, c) of an image of the given shape (b, h, w, c)."""
  index, fraction, inside = corners(points, *shape[1:3])
  total: jax.Array | float = 0.0
  for corner in CORNERS:
    weight = mask * corner_weight(fraction, inside, corner)
    total = total + weight[..., None] * gather(pixels, index[corner])
  return jnp.asarray(total)
