"""Gradients of the one-step contextual convolutions: the taps are sampled anew, one after the other.

All images go through a tap together. On a CPU a few at a time go through all taps, so that what they need
stays in the cache, and sums are written as products with ones, which XLA vectorises there. Accelerators have
another form of the depthwise one, in depthwise_gradients.py.

Axes: b images, h w input grid, u v output grid, k taps (row-major), c in, d out. Shapes: x (b, h, w, c),
kernel (k, c) with delta (b, k, c) or kernel (k, c, d), points (k, b, u, v, 2), mask (k, b, u, v),
dy (b, u, v, c or d).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.ops import in_turn
from ctx_flax.ops.bilinear import CORNERS, corner_weight, corners, gather
from ctx_flax.ops.sums import sum_axis
from ctx_flax.ops.taps import flatten, kernel_of_tap, sample_tap

Arrays = tuple[jax.Array, ...]
CACHE_BYTES = 5 << 17  # 0.6 MB for one of the arrays that stay in a CPU's cache


def depthwise(path: str | None, saved: Arrays, dy: jax.Array, on_gpu: Callable[..., Arrays]) -> Arrays:
  """The gradients of the five saved: x, kernel, delta, points and mask.

  Args:
    path: as in contextual_conv.
    saved: the five.
    dy: (b, u, v, c).
    on_gpu: depthwise_gradients.depthwise, for accelerators.
  """
  x, kernel, delta, points, mask = saved
  gradients = functools.partial(_depthwise_gradients, kernel)
  arrays = x, delta, points, mask, dy
  on_gpu = functools.partial(on_gpu, kernel)
  dx, ddelta, dpoints, dmask = _choose(path, gradients, (0, 0, 1, 1, 0), arrays, on_gpu)
  return dx, jnp.sum(ddelta, 0), ddelta, dpoints, dmask


def dense(path: str | None, saved: Arrays, dy: jax.Array) -> Arrays:
  """The gradients of the four saved: x, kernel, points and mask. path as in contextual_conv."""
  return _choose(path, _dense_gradients, (0, None, 1, 1, 0), (*saved, dy))


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


def _choose(
  path: str | None,
  gradients: Callable[..., Arrays],
  axes: tuple[int | None, ...],
  arrays: Arrays,
  on_gpu: Callable[..., Arrays] | None = None,
) -> Arrays:
  """The gradients of (x, kernel or delta, points, mask), for these and dy, as path or platform want them.

  Args:
    path: None, 'one_step', 'one_step_cpu' or 'one_step_gpu'.
    gradients: a function of the five arrays and cpu=bool.
    axes: of the images in the five; None for a kernel that all share.
    arrays: the five.
    on_gpu: a function of the five for accelerators; None: `gradients` with cpu=False.
  """
  together = functools.partial(gradients, cpu=False)
  on_gpu = on_gpu or together
  on_cpu = functools.partial(_in_turn, gradients, axes)
  if path:
    ways: dict[str, Callable[..., Any]] = {
      'one_step': together,
      'one_step_cpu': on_cpu,
      'one_step_gpu': on_gpu,
    }
    found = ways[path](*arrays)
  else:
    found = jax.lax.platform_dependent(*arrays, cpu=on_cpu, default=on_gpu)
  dx, dkernel, dpoints, dmask = found
  return dx, dkernel.astype(arrays[1].dtype), dpoints, dmask


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
    return gradients(*arrays, cpu=True)
  shared = axes[1] is None
  total = jnp.zeros(kernel.shape, dy.dtype) if shared else None

  def some(total: Any, own: Any) -> tuple[Any, Any]:
    x, own_kernel, points, mask, dy = own
    dx, dkernel, *rest = gradients(x, kernel if shared else own_kernel, points, mask, dy, cpu=True)
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
  return pixels.at[index.reshape(-1)].add(values.reshape(-1, values.shape[-1]), mode='promise_in_bounds')
