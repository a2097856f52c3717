"""The one-step contextual convolutions as loops over taps, one after the other: what a CPU runs.

Axes: b images, h w input grid, u v output grid, k taps (row-major), c in, d out.
"""

import jax
import jax.numpy as jnp

from ctx_flax.ops.bilinear import bilinear_sample
from ctx_flax.ops.geometry import Window, accumulation
from ctx_flax.ops.taps import flatten, kernel_of_tap, sample_tap, taps_first

Arrays = tuple[jax.Array, ...]


def depthwise(
  x: jax.Array, kernel: jax.Array, delta: jax.Array, offsets: jax.Array, mask: jax.Array, window: Window
) -> jax.Array:
  """The sum over taps of the depthwise convolution, (b, u, v, c) in the dtype of x.

  Args:
    x: (b, h, w, c).
    kernel: (k, c), shared by all images.
    delta: (b, k, c), added to the kernel of each image.
    offsets: (b, u, v, k, 2).
    mask: (b, u, v, k).
    window: where the taps lie.
  """
  dtype, pixels = accumulation(x), flatten(x)
  points, mask = taps_first(offsets, mask, window, dtype)

  def add_tap(total: jax.Array, tap: Arrays) -> tuple[jax.Array, None]:
    number, points, mask = tap
    return total + kernel_of_tap(kernel, delta, number) * sample_tap(pixels, points, mask, x.shape), None

  total = jnp.zeros((*points.shape[1:4], x.shape[-1]), dtype)
  return jax.lax.scan(add_tap, total, (jnp.arange(len(points)), points, mask))[0].astype(x.dtype)


def dense(
  x: jax.Array, kernel: jax.Array, delta: jax.Array, offsets: jax.Array, mask: jax.Array, window: Window
) -> jax.Array:
  """The sum over taps of the dense convolution, (b, u, v, d): kernel (k, c, d), else as of `depthwise`."""
  dtype, pixels = accumulation(x), flatten(x)
  points, mask = taps_first(offsets, mask, window, dtype)

  def add_tap(total: jax.Array, tap: Arrays) -> tuple[jax.Array, None]:
    kernel, points, mask = tap
    sample = sample_tap(pixels, points, mask, x.shape).astype(x.dtype)
    return total + jnp.einsum('buvc,cd->buvd', sample, kernel, preferred_element_type=dtype), None

  total = jnp.zeros((*points.shape[1:4], kernel.shape[-1]), dtype)
  total = jax.lax.scan(add_tap, total, (kernel, points, mask))[0]
  return (total + delta_sum(x, delta, points, mask)[..., None]).astype(x.dtype)


def delta_sum(x: jax.Array, delta: jax.Array, points: jax.Array, mask: jax.Array) -> jax.Array:
  """What the deltas (b, k, c) add to every output channel of the dense convolution: (b, u, v).

  Sampling is linear: each tap's image is first contracted with its delta, and one number is sampled.

  Args:
    x: (b, h, w, c).
    delta: (b, k, c).
    points: (k, b, u, v, 2).
    mask: (k, b, u, v).
  """
  low = delta.astype(x.dtype)  # as the shared kernel: products in the compute dtype, sums in float32
  fields = jnp.einsum('bhwc,bkc->kbhw', x, low, preferred_element_type=delta.dtype)

  @jax.checkpoint  # else automatic differentiation keeps a dozen arrays of all taps
  def add_tap(total: jax.Array, tap: Arrays) -> tuple[jax.Array, None]:
    field, points, mask = tap
    return total + mask * bilinear_sample(field[..., None], points)[..., 0], None

  return jax.lax.scan(add_tap, jnp.zeros(points.shape[1:4], delta.dtype), (fields, points, mask))[0]
