"""The one-step contextual depthwise convolution on accelerators: few and long kernels.

Seven taps in a turn of the sum: they are one kernel, which reads and writes the sum once.

What bounds each gradient differs, so each has a loop of its own:

- the image's is one scatter of all taps for as many images as stay in the L2 cache (a scatter that misses it
  takes 1.6 times as long);
- those of offsets and mask are sums over the channels, computed from the same pixels;
- the kernel's sums over positions are the sum itself with the roles of taps and positions exchanged: a few
  positions in a turn, added onto what all taps have gathered. As a reduction it takes 2.8 times as long.

Nothing of size b * u * v * k * c is kept: XLA makes one kernel of a gather and the sum or scatter after it.
Offsets and masks are read as they come, in a kernel of every turn that computes pixels and weights; an array
of all points, taps first, is never made. docs/gpu.md has launches, times and memory. Axes: b images, h w
input grid, u v output grid, k taps, c channels, p positions (u * v), s strips of positions, t taps or
positions of a turn, n images of a turn.
"""

import jax
import jax.numpy as jnp

from ctx_flax.ops import in_turn
from ctx_flax.ops.bilinear import IN_BOUNDS, Two
from ctx_flax.ops.geometry import Integers, Window, accumulation, tap_positions
from ctx_flax.ops.gpu_samples import in_shape_of, row_major, samples_of, sampling_gradients
from ctx_flax.ops.taps import flatten, sample_at

Arrays = tuple[jax.Array, ...]
# 7 of 49 make the sum 1.8 to 3.1 times as fast on an H200.
TAPS_IN_A_TURN = 7
CACHE_BYTES = 10_000_000  # of an image gradient in float32; an H200 has 50 MB of L2, and 40 MB are too many
POSITIONS_IN_A_TURN = 7  # with 14, XLA keeps what it has gathered: 1 GB
POSITIONS_PER_STRIP = 49  # strips are summed side by side, so that small images fill the card too


def depthwise_sum(
  x: jax.Array, kernel: jax.Array, delta: jax.Array, offsets: jax.Array, mask: jax.Array, window: Window
) -> jax.Array:
  """The sum over taps, (b, u, v, c) in the dtype of x.

  Args:
    x: (b, h, w, c).
    kernel: (k, c), shared by all images.
    delta: (b, k, c), added to the kernel of each image.
    offsets: (b, u, v, k, 2).
    mask: (b, u, v, k).
    window: where the taps lie.
  """
  b, c = x.shape[0], x.shape[-1]
  u, v, k = mask.shape[1:]
  dtype, pixels, own = accumulation(x), flatten(x), kernel[None] + delta
  t = in_turn.largest_divisor(k, TAPS_IN_A_TURN)
  place = _numbers((b, u, v))

  def add_taps(turn: jax.Array, total: jax.Array) -> jax.Array:
    for tap in ((turn * t + i).astype(jnp.int32) for i in range(t)):
      shift, weight = _at(offsets, tap, 3).astype(dtype), _at(mask, tap, 3).astype(dtype)
      sample = sample_at(
        pixels, _moved(tap_positions(place // v, place % v, tap, window), shift), weight, x.shape
      )
      total = total + _at(own, tap, 1)[:, None, None] * sample
    return total

  total = jax.lax.fori_loop(0, k // t, add_taps, jnp.zeros((b, u, v, c), dtype))
  return total.astype(x.dtype)


def depthwise_gradients(
  x: jax.Array,
  kernel: jax.Array,
  delta: jax.Array,
  offsets: jax.Array,
  mask: jax.Array,
  dy: jax.Array,
  window: Window,
) -> Arrays:
  """Gradients of the five; arguments as those of `depthwise_sum`, dy (b, u, v, c)."""
  b, h, w, c = x.shape
  p = mask.shape[1] * mask.shape[2]
  n = in_turn.largest_divisor(b, CACHE_BYTES // (h * w * c * dy.dtype.itemsize))
  pixels, cotangents = x.reshape(b * h * w, c), dy.reshape(b, p, c)
  kernels = jnp.swapaxes(kernel[None] + delta, 0, 1)  # (k, b, c)
  dtype = jnp.promote_types(offsets.dtype, mask.dtype)

  def add_images(dx: jax.Array, turn: jax.Array) -> tuple[jax.Array, jax.Array]:
    first = turn * n
    some = lambda array, axis=0: jax.lax.dynamic_slice_in_dim(array, first, n, axis)
    samples = samples_of(some(offsets), some(mask), first, (h, w), window, dy.dtype, taps_first=True)
    own, cotangent = some(kernels, 1)[None, :, :, None], some(cotangents)[None, None]
    # Never in memory: (4, k, n, p, c).
    picked = pixels.at[samples.rows].get(**IN_BOUNDS).astype(dy.dtype)
    # The products in two orders: if XLA could share one it would keep it.
    along = jnp.sum((picked * own) * cotangent, -1)
    dx = dx.at[samples.rows].add((samples.weights[..., None] * own) * cotangent, **IN_BOUNDS)
    return dx, sampling_gradients(along, samples, (h, w), dtype)

  dx = jnp.zeros((b * h * w, c), dy.dtype)
  dx, gradients = jax.lax.scan(add_images, dx, jnp.arange(b // n, dtype=jnp.int32))
  ddelta = _kernel_gradient(x, offsets, mask, dy, window)
  dx = dx.reshape(x.shape).astype(x.dtype)
  return dx, jnp.sum(ddelta, 0), ddelta, *in_shape_of(offsets, mask, gradients, taps_first=True)


def _kernel_gradient(
  x: jax.Array, offsets: jax.Array, mask: jax.Array, dy: jax.Array, window: Window
) -> jax.Array:
  """(b, k, c): what each image's own kernel has for a gradient."""
  b, c = x.shape[0], x.shape[-1]
  u, v, k = mask.shape[1:]
  p, dtype, pixels = u * v, dy.dtype, flatten(x)
  length = in_turn.largest_divisor(p, POSITIONS_PER_STRIP)
  s, t = p // length, in_turn.largest_divisor(length, POSITIONS_IN_A_TURN)
  number_of_tap = _numbers((b, s, k))
  strips, taps = number_of_tap // k, number_of_tap % k
  offsets, mask, dy = (array.reshape(b, s, length, *array.shape[3:]) for array in (offsets, mask, dy))

  def add_positions(turn: jax.Array, total: jax.Array) -> jax.Array:
    for number in ((turn * t + i).astype(jnp.int32) for i in range(t)):
      shift, weight = _at(offsets, number, 2).astype(dtype), _at(mask, number, 2).astype(dtype)
      position = strips * length + number
      points = _moved(tap_positions(position // v, position % v, taps, window), shift)
      sample = sample_at(pixels, points, weight, x.shape)  # (b, s, k, c)
      total = total + sample * _at(dy, number, 2)[:, :, None]
    return row_major(total)

  total = jax.lax.fori_loop(0, length // t, add_positions, jnp.zeros((b, s, k, c), dtype))
  return jnp.sum(total, 1)


def _at(array: jax.Array, number: jax.Array, axis: int) -> jax.Array:
  return jax.lax.dynamic_index_in_dim(array, number, axis, keepdims=False)


def _moved(centre: tuple[Integers, Integers], shift: jax.Array) -> Two:
  """Points from whole positions and shifts (..., 2). As one array XLA would keep the positions."""
  return shift[..., 0] + centre[0].astype(shift.dtype), shift[..., 1] + centre[1].astype(shift.dtype)


def _numbers(shape: tuple[int, ...]) -> jax.Array:
  """The numbers of an image's elements, (b, i, j).

  For all images, because what XLA computes anew in every turn of a smaller array it computes in a kernel of
  its own.
  """
  rows, columns = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (1, 2))
  return jax.lax.optimization_barrier(rows * shape[2] + columns)
