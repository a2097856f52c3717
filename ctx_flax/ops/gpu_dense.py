"""The one-step contextual dense convolution on accelerators: all taps of a few images at a time.

Their samples (n, p, k, c), which stay in the L2 cache, go into one matrix product with the kernel of all taps
(k * c, d); tap by tap it would be k short ones. Axes: b images, h w input grid, u v output grid, k taps,
c in, d out, p positions (u * v), n images of a turn.
"""

import math

import jax
import jax.numpy as jnp

from ctx_flax.ops import contextual_sums, in_turn
from ctx_flax.ops.bilinear import CORNERS, IN_BOUNDS, Two, corner_weight, corners_at
from ctx_flax.ops.geometry import Window, accumulation
from ctx_flax.ops.gpu_samples import (
  Samples,
  in_shape_of,
  moved_taps,
  row_major,
  samples_of,
  sampling_gradients,
)

Arrays = tuple[jax.Array, ...]
# Of the samples of a turn, in the dtype of the image: more take fewer kernels and more memory.
SUM_BYTES = 30_000_000
GRADIENTS_BYTES = 60_000_000


def dense_sum(
  x: jax.Array, kernel: jax.Array, delta: jax.Array, offsets: jax.Array, mask: jax.Array, window: Window
) -> jax.Array:
  """The sum over taps, (b, u, v, d) in the dtype of x.

  Args:
    x: (b, h, w, c).
    kernel: (k, c, d), shared by all images.
    delta: (b, k, c), added to the kernel of each image for every output channel.
    offsets: (b, u, v, k, 2).
    mask: (b, u, v, k).
    window: where the taps lie.
  """
  b, h, w, c = x.shape
  if jax.export.is_symbolic_dim(b):  # an exported program for any batch cannot cut it into turns
    return contextual_sums.dense(x, kernel, delta, offsets, mask, window)
  u, v, k = mask.shape[1:]
  d, dtype, pixels = kernel.shape[-1], accumulation(x), x.reshape(b * h * w, c)
  n = images_in_a_turn(x, mask, SUM_BYTES)
  more = _delta_sum(x, delta, offsets, mask, window)
  matrix = kernel.reshape(k * c, d)

  def some_images(turn: jax.Array) -> jax.Array:
    first = turn * n
    some = lambda array: jax.lax.dynamic_slice_in_dim(array, first, n)
    samples = samples_of(some(offsets), some(mask), first, (h, w), window, dtype, taps_first=False)
    sampled = _sampled(pixels, samples).reshape(n * u * v, k * c)
    products = jnp.matmul(sampled, matrix, preferred_element_type=dtype)
    return (products.reshape(n, u, v, d) + some(more)[..., None]).astype(x.dtype)

  return jax.lax.map(some_images, jnp.arange(b // n, dtype=jnp.int32)).reshape(b, u, v, d)


def dense_gradients(
  x: jax.Array,
  kernel: jax.Array,
  delta: jax.Array,
  offsets: jax.Array,
  mask: jax.Array,
  dy: jax.Array,
  window: Window,
) -> Arrays:
  """Gradients of the five; arguments as those of `dense_sum`, dy (b, u, v, d)."""
  b, h, w, c = x.shape
  u, v, k = mask.shape[1:]
  p, d, dtype, pixels = u * v, kernel.shape[-1], dy.dtype, x.reshape(b * h * w, c)
  n = images_in_a_turn(x, mask, GRADIENTS_BYTES)
  matrix = kernel.reshape(k * c, d)
  low = dy.astype(x.dtype).reshape(b, p, d)  # matrix products in the compute dtype, sums in float32
  summed = jnp.sum(dy, -1).reshape(b, p)  # what the delta, which all output channels share, sees of it
  result = jnp.promote_types(offsets.dtype, mask.dtype)

  def add_images(sums: Two, turn: jax.Array) -> tuple[Two, Arrays]:
    dx, dmatrix = sums
    first = turn * n
    some = lambda array: jax.lax.dynamic_slice_in_dim(array, first, n)
    samples = samples_of(some(offsets), some(mask), first, (h, w), window, dtype, taps_first=False)
    cotangents, seen, own = some(low), some(summed), some(delta)[:, None]  # own (n, 1, k, c)
    sampled = row_major(_sampled(pixels, samples)).reshape(n, p, k * c)
    # With the samples on the right they stay as they are; on the left XLA transposes them.
    dmatrix += jnp.matmul(
      cotangents.reshape(n * p, d).T, sampled.reshape(n * p, k * c), preferred_element_type=dtype
    )
    ddelta = jnp.sum(sampled.astype(dtype) * seen[..., None], 1)
    # First the samples, then the cotangents: not both in memory.
    cotangents, dmatrix, ddelta = jax.lax.optimization_barrier((cotangents, dmatrix, ddelta))
    through = jnp.matmul(cotangents.reshape(n * p, d), matrix.T, preferred_element_type=dtype)
    through = row_major(through).reshape(n, p, k, c)
    seen, own = seen[None, ..., None, None], own[None]
    through, weights = through[None], samples.weights[..., None]
    # Never in memory: (4, n, p, k, c). Products in several orders: if XLA could share one it would keep it.
    picked = pixels.at[samples.rows].get(**IN_BOUNDS).astype(dtype)
    along = jnp.sum(picked * through + (picked * own) * seen, -1)
    dx = dx.at[samples.rows].add(weights * through + (weights * own) * seen, **IN_BOUNDS)
    return (dx, dmatrix), (ddelta, sampling_gradients(along, samples, (h, w), result))

  sums = jnp.zeros((b * h * w, c), dtype), jnp.zeros((d, k * c), dtype)
  (dx, dmatrix), (ddelta, rest) = jax.lax.scan(add_images, sums, jnp.arange(b // n, dtype=jnp.int32))
  return (
    dx.reshape(x.shape).astype(x.dtype),
    dmatrix.T.reshape(kernel.shape).astype(kernel.dtype),
    ddelta.reshape(delta.shape),
    *in_shape_of(offsets, mask, rest, taps_first=False),
  )


def images_in_a_turn(x: jax.Array, mask: jax.Array, at_most_bytes: int) -> int:
  """How many images' samples fit: a divisor of b."""
  samples = math.prod(mask.shape[1:]) * x.shape[-1] * x.dtype.itemsize
  return in_turn.largest_divisor(len(x), at_most_bytes // samples)


def _sampled(pixels: jax.Array, samples: Samples) -> jax.Array:
  """The samples (n, p, k, c) of some images in the dtype of pixels (b * h * w, c), all in memory."""
  total: jax.Array | float = 0.0
  for rows, weights in zip(samples.rows, samples.weights, strict=True):
    total = total + weights[..., None] * pixels.at[rows].get(**IN_BOUNDS).astype(weights.dtype)
  return jax.lax.optimization_barrier(jnp.asarray(total).astype(pixels.dtype))


def _delta_sum(
  x: jax.Array, delta: jax.Array, offsets: jax.Array, mask: jax.Array, window: Window
) -> jax.Array:
  """What the deltas add to every output channel, (b, u, v): one number per pixel and tap is sampled."""
  h, w = x.shape[1:3]
  k, dtype, low = delta.shape[1], delta.dtype, delta.astype(x.dtype)
  fields = jnp.einsum('bhwc,bkc->bhwk', x, low, preferred_element_type=dtype).reshape(-1)
  index, fraction, inside = corners_at(*moved_taps(offsets, window, dtype), h, w)
  image = jax.lax.broadcasted_iota(jnp.int32, mask.shape, 0) * (h * w)
  tap = jax.lax.broadcasted_iota(jnp.int32, mask.shape, 3)
  total: jax.Array | float = 0.0
  for corner in CORNERS:
    picked = fields.at[(index[corner] + image) * k + tap].get(**IN_BOUNDS)
    total = total + corner_weight(fraction, inside, corner) * picked
  return jnp.sum(mask.astype(dtype) * total, -1)
