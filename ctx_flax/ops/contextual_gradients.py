"""Gradients of the one-step contextual convolutions: the taps are sampled anew, one after the other.

All images go through a tap together, or, on a CPU, a few at a time through all taps, so that what they need
stays in the cache; sums are written as products with ones there, which XLA vectorises. Accelerators have
other forms, in gpu_depthwise.py and gpu_dense.py.

Axes: b images, h w input grid, u v output grid, k taps (row-major), c in, d out. Shapes: x (b, h, w, c),
kernel (k, c) or (k, c, d), delta (b, k, c), offsets (b, u, v, k, 2), mask (b, u, v, k), dy (b, u, v, c or d);
in the loops points (k, b, u, v, 2) and mask (k, b, u, v).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.ops import in_turn
from ctx_flax.ops.bilinear import CORNERS, PROMISED, corner_weight, corners, gather
from ctx_flax.ops.contextual_sums import delta_sum
from ctx_flax.ops.geometry import Window
from ctx_flax.ops.sums import sum_axis
from ctx_flax.ops.taps import flatten, kernel_of_tap, sample_tap, taps_first

Arrays = tuple[jax.Array, ...]
CACHE_BYTES = 5 << 17  # 0.6 MB for one of the arrays that stay in a CPU's cache


def depthwise(
  x: jax.Array,
  kernel: jax.Array,
  delta: jax.Array,
  offsets: jax.Array,
  mask: jax.Array,
  dy: jax.Array,
  window: Window,
  cpu: bool = False,
) -> Arrays:
  """The gradients of x, kernel, delta, offsets and mask. cpu: a few images at a time, sums as products."""
  points, weights = taps_first(offsets, mask, window, dy.dtype)
  gradients = functools.partial(_depthwise_gradients, kernel, cpu=cpu)
  arrays = x, delta, points, weights, dy
  some = _in_turn(gradients, (0, 0, 1, 1, 0), *arrays) if cpu else gradients(*arrays)
  dx, ddelta, dpoints, dweights = some
  return dx, jnp.sum(ddelta, 0), ddelta, *_taps_last(dpoints, dweights, offsets, mask)


def dense(
  x: jax.Array,
  kernel: jax.Array,
  delta: jax.Array,
  offsets: jax.Array,
  mask: jax.Array,
  dy: jax.Array,
  window: Window,
  cpu: bool = False,
) -> Arrays:
  """The gradients of x, kernel, delta, offsets and mask; cpu as of `depthwise`."""
  points, weights = taps_first(offsets, mask, window, dy.dtype)
  gradients = functools.partial(_dense_gradients, cpu=cpu)
  arrays = x, kernel, points, weights, dy
  some = _in_turn(gradients, (0, None, 1, 1, 0), *arrays) if cpu else gradients(*arrays)
  dx, dkernel, dpoints, dweights = some
  more = jax.vjp(delta_sum, x, delta, points, weights)[1](jnp.sum(dy, -1))
  last = _taps_last(dpoints + more[2], dweights + more[3], offsets, mask)
  return dx + more[0], dkernel.astype(kernel.dtype), more[1], *last


def _taps_last(dpoints: jax.Array, dweights: jax.Array, offsets: jax.Array, mask: jax.Array) -> Arrays:
  """Gradients of points and weights, taps first, as those of offsets and mask."""
  return (
    jnp.moveaxis(dpoints, 0, 3).astype(offsets.dtype),
    jnp.moveaxis(dweights, 0, 3).astype(mask.dtype),
  )


def _depthwise_gradients(
  kernel: jax.Array,
  x: jax.Array,
  delta: jax.Array,
  points: jax.Array,
  mask: jax.Array,
  dy: jax.Array,
  *,
  cpu: bool,
) -> Arrays:
  pixels = flatten(x)

  def tap_gradients(sums: Any, tap: Any) -> tuple[Any, Any]:
    dx, ddelta = sums
    number, points, mask = tap
    own = kernel_of_tap(kernel, delta, number)
    # One scatter serves two gradients: of x (times the kernel) and of the kernel (times x).
    nothing = jnp.zeros(pixels.shape, dy.dtype)
    dpoints, dmask, scattered = _tap_gradients(pixels, points, mask, dy * own, dy, nothing, x.shape, cpu)
    dkernel = sum_axis(pixels.astype(dy.dtype) * scattered, -2, path='product' if cpu else 'sum')
    ddelta = jax.lax.dynamic_update_index_in_dim(ddelta, dkernel, number, 1)
    return (dx + own[:, 0] * scattered, ddelta), (dpoints, dmask)

  sums = jnp.zeros(pixels.shape, dy.dtype), jnp.zeros(delta.shape, dy.dtype)
  taps = jnp.arange(len(points)), points, mask
  (dx, ddelta), (dpoints, dmask) = jax.lax.scan(tap_gradients, sums, taps)
  return dx.reshape(x.shape).astype(x.dtype), ddelta, dpoints, dmask


def _dense_gradients(
  x: jax.Array, kernel: jax.Array, points: jax.Array, mask: jax.Array, dy: jax.Array, *, cpu: bool
) -> Arrays:
  pixels, dtype = flatten(x), dy.dtype
  low = dy.astype(x.dtype)  # matrix products in the compute dtype, sums in float32

  def tap_gradients(dx: jax.Array, tap: Arrays) -> tuple[jax.Array, Arrays]:
    kernel, points, mask = tap
    sample = sample_tap(pixels, points, mask, x.shape).astype(x.dtype)
    dkernel = jnp.einsum('buvc,buvd->cd', sample, low, preferred_element_type=dtype)
    dsample = jnp.einsum('buvd,cd->buvc', low, kernel, preferred_element_type=dtype)
    dpoints, dmask, dx = _tap_gradients(pixels, points, mask, dsample, dsample, dx, x.shape, cpu)
    return dx, (dkernel, dpoints, dmask)

  dx = jnp.zeros(pixels.shape, dtype)
  dx, (dkernel, dpoints, dmask) = jax.lax.scan(tap_gradients, dx, (kernel, points, mask))
  return dx.reshape(x.shape).astype(x.dtype), dkernel, dpoints, dmask


def _in_turn(
  gradients: Callable[..., Arrays],
  axes: tuple[int | None, ...],
  x: jax.Array,
  kernel: jax.Array,
  points: jax.Array,
  mask: jax.Array,
  dy: jax.Array,
) -> tuple[Any, ...]:
  """A few images at a time, which stay in a CPU's cache from the first tap to the last."""
  arrays, images = (x, kernel, points, mask, dy), images_at_once(x)
  if images == x.shape[0]:
    return gradients(*arrays)
  shared = axes[1] is None
  total = jnp.zeros(kernel.shape, dy.dtype) if shared else None

  def some(total: Any, own: Any) -> tuple[Any, Any]:
    x, own_kernel, points, mask, dy = own
    dx, dkernel, *rest = gradients(x, kernel if shared else own_kernel, points, mask, dy)
    return (total + dkernel, (dx, None, *rest)) if shared else (None, (dx, dkernel, *rest))

  own = tuple(
    None if axis is None else in_turn.split(array, images, axis)
    for array, axis in zip(arrays, axes, strict=True)
  )
  total, found = jax.lax.scan(some, total, own)
  dx, dkernel, dpoints, dmask = (
    None if axis is None else in_turn.join(array, axis) for array, axis in zip(found, axes[:4], strict=True)
  )
  return dx, total if shared else dkernel, dpoints, dmask


def images_at_once(x: jax.Array) -> int:
  """How many of the images (b, h, w, c) fit into the cache in float32: a divisor of b."""
  b, h, w, c = x.shape
  return in_turn.largest_divisor(b, CACHE_BYTES // (4 * h * w * c))


def _explained(
  dsample: jax.Array, pixels: jax.Array, index: dict[tuple[int, int], jax.Array], cpu: bool
) -> dict[tuple[int, int], jax.Array]:
  """How much of a cotangent (b, u, v, c) the pixel at each corner explains: {corner: (b, u, v)}.

  The only sums over channels that the gradients need.
  """
  if not cpu:
    return {corner: jnp.sum(dsample * gather(pixels, index[corner]), -1) for corner in CORNERS}
  picked = gather(pixels, jnp.stack([index[corner] for corner in CORNERS], 1))  # one long one is faster
  along = sum_axis(dsample[:, None] * picked, -1, path='product')
  return {corner: along[:, n] for n, corner in enumerate(CORNERS)}


# One tap: points (b, u, v, 2), mask (b, u, v), pixels (b, h * w, c).


@functools.partial(jax.jit, static_argnames=('shape', 'cpu'), inline=True)  # traced once for every shape
def _tap_gradients(
  pixels: jax.Array,
  points: jax.Array,
  mask: jax.Array,
  dsample: jax.Array,
  spread: jax.Array,
  onto: jax.Array,
  shape: tuple[int, ...],
  cpu: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Transposes one sampled tap, given the cotangent dsample (b, u, v, c) of its samples.

  Returns:
    The gradients of the points (b, u, v, 2) and of the mask (b, u, v), and `onto` (b, h * w, c) with
    mask * interpolation weight * `spread` (b, u, v, c) added to the pixels that were sampled.
  """
  index, fraction, inside = corners(points, *shape[1:3])
  weight = {corner: corner_weight(fraction, inside, corner) for corner in CORNERS}
  for corner in CORNERS:
    onto = jax.vmap(_add_at)(onto, index[corner], (mask * weight[corner])[..., None] * spread)
  along = _explained(dsample, pixels, index, cpu)
  dmask: jax.Array | float = 0.0
  dy: jax.Array | float = 0.0
  dx: jax.Array | float = 0.0
  for i, j in CORNERS:
    dmask += weight[i, j] * along[i, j]
    visible = along[i, j] * inside[0][i] * inside[1][j]
    dy += (1 if i else -1) * (fraction[1] if j else 1 - fraction[1]) * visible
    dx += (1 if j else -1) * (fraction[0] if i else 1 - fraction[0]) * visible
  return mask[..., None] * jnp.stack([dy, dx], -1), jnp.asarray(dmask), onto


def _add_at(pixels: jax.Array, index: jax.Array, values: jax.Array) -> jax.Array:
  return pixels.at[index.reshape(-1)].add(values.reshape(-1, values.shape[-1]), **PROMISED)
