"""Contextual convolutions in one step: taps are sampled, weighted and added up one after the other.

Deformable, modulated, and with a kernel that differs from image to image by a small delta. Nothing of
size b * u * v * k * c exists at any time, neither forward nor backward: the gradient rules sample the
taps anew. docs/one_step.md explains the arithmetic and the memory. Axes: b images, h w input grid, u v
output grid, k taps (row-major), c in, d out.

Source: the paper's supplementary, section 3 ("efficient computation"), for the depthwise case; the
dense case uses that a delta shared by all output channels adds one number per image and position.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.ops import contextual_gradients, depthwise_gradients
from ctx_flax.ops.bilinear import bilinear_sample
from ctx_flax.ops.deform_conv import deform_conv
from ctx_flax.ops.geometry import (
  Padding,
  Pair,
  accumulation,
  check_sampling,
  check_shape,
  geometry_of,
)
from ctx_flax.ops.in_turn import largest_divisor
from ctx_flax.ops.taps import flatten, kernel_of_tap, sample_tap, taps_first

Arrays = tuple[jax.Array, ...]
PATHS = 'one_step', 'one_step_cpu', 'one_step_gpu', 'two_steps'
# Taps in a turn of the depthwise sum on accelerators, which then launch fewer kernels and read and write the
# sum less often: 7 of 49 make the forward pass 1.8 to 3.1 times as fast on an H200 (docs/gpu.md). A CPU is
# faster with one.
TAPS_IN_A_TURN = 7


def contextual_conv(
  x: jax.Array,
  kernel: jax.Array,
  kernel_delta: jax.Array,
  offsets: jax.Array,
  mask: jax.Array | None = None,
  *,
  strides: int | Pair = 1,
  padding: Padding = 0,
  dilation: int | Pair = 1,
  path: str | None = None,
) -> jax.Array:
  """Dense contextual convolution: a shared kernel plus a per-image delta over inputs and taps.

  y[b, p, d] = sum over k, c of (kernel[k, c, d] + kernel_delta[b, k, c]) mask[b, p, k]
  bilinear(x[b, :, :, c], p * stride - pad + tap_k * dilation + offset[b, p, k]).

  Computed as the deformable convolution with the shared kernel plus one number per image and position
  (the delta's part is the same for every output channel), so no per-image copy of the kernel is made.

  Args:
    x: (b, h, w, c).
    kernel: (kh, kw, c, d), shared by all images.
    kernel_delta: (b, kh, kw, c), added to the kernel of each image for every output channel.
    offsets: (b, u, v, k, 2), (dy, dx) in input pixels.
    mask: (b, u, v, k) or None for ones.
    strides, dilation: int or (rows, columns).
    padding: int, (rows, columns), ((top, bottom), (left, right)), 'SAME' or 'VALID' (XLA's).
    path: None chooses by platform; 'one_step', 'one_step_cpu' (other gradients), 'one_step_gpu' (as
      'one_step') or 'two_steps' (materialises all taps and kernels) forces.

  Returns:
    (b, u, v, d) in the dtype of x; accumulated in at least float32.

  Raises:
    ValueError: a wrong shape or dtype, naming the argument, its shape and the expected one.
  """
  check_shape('x', x, 'b h w c', (None, None, None, None))
  b, _, _, c = x.shape
  check_shape('kernel', kernel, 'kh kw c d', (None, None, c, None))
  kh, kw, _, d = kernel.shape
  check_shape('kernel_delta', kernel_delta, 'b kh kw c', (b, kh, kw, c))
  geometry = geometry_of(x, (kh, kw), strides, padding, dilation)
  check_sampling(x, (kh, kw), offsets, mask, geometry)
  if _checked(path) == 'two_steps':
    dtype = accumulation(x)
    kernels = (kernel.astype(dtype)[None] + kernel_delta.astype(dtype)[..., None]).astype(x.dtype)
    return deform_conv(x, kernels, offsets, mask, strides=strides, padding=padding, dilation=dilation)
  points, mask = taps_first(offsets, mask, (kh, kw), geometry, accumulation(x))
  y = _sum_dense_once(x, kernel.astype(x.dtype).reshape(kh * kw, c, d), points, mask, path)
  delta = kernel_delta.astype(accumulation(x)).reshape(b, kh * kw, c)
  return (y + _delta_sum(x, delta, points, mask)[..., None]).astype(x.dtype)


def contextual_depthwise_conv(
  x: jax.Array,
  kernel: jax.Array,
  kernel_delta: jax.Array | None,
  offsets: jax.Array,
  mask: jax.Array | None = None,
  *,
  strides: int | Pair = 1,
  padding: Padding = 0,
  dilation: int | Pair = 1,
  path: str | None = None,
) -> jax.Array:
  """Depthwise contextual convolution: every channel has its own kernel, shared plus a per-image delta.

  y[b, p, c] = sum over k of (kernel[k, c] + kernel_delta[b, k, c]) mask[b, p, k]
  bilinear(x[b, :, :, c], p * stride - pad + tap_k * dilation + offset[b, p, k]).

  Args:
    x: (b, h, w, c).
    kernel: (kh, kw, 1, c), shared by all images.
    kernel_delta: (b, kh, kw, c) or None for none.
    offsets: (b, u, v, k, 2), (dy, dx) in input pixels; all channels of an image share them.
    mask: (b, u, v, k) or None for ones.
    strides, dilation: int or (rows, columns).
    padding: int, (rows, columns), ((top, bottom), (left, right)), 'SAME' or 'VALID' (XLA's).
    path: None chooses by platform; 'one_step', 'one_step_cpu' (gradients a few images at a time),
      'one_step_gpu' (several taps in a turn, other gradients) or 'two_steps' (materialises all taps) forces.

  Returns:
    (b, u, v, c) in the dtype of x; accumulated in at least float32.

  Raises:
    ValueError: a wrong shape or dtype, naming the argument, its shape and the expected one.

  Source: the paper's supplementary, section 3.
  """
  check_shape('x', x, 'b h w c', (None, None, None, None))
  b, _, _, c = x.shape
  check_shape('kernel', kernel, 'kh kw 1 c', (None, None, 1, c))
  kh, kw = kernel.shape[:2]
  if kernel_delta is not None:
    check_shape('kernel_delta', kernel_delta, 'b kh kw c', (b, kh, kw, c))
  geometry = geometry_of(x, (kh, kw), strides, padding, dilation)
  check_sampling(x, (kh, kw), offsets, mask, geometry)
  dtype = accumulation(x)
  kernel = kernel.astype(dtype).reshape(kh * kw, c)
  delta = jnp.zeros((b, 1, 1, 1), dtype) if kernel_delta is None else kernel_delta.astype(dtype)
  delta = jnp.broadcast_to(delta, (b, kh, kw, c)).reshape(b, kh * kw, c)
  if _checked(path) == 'two_steps':
    kernels = (kernel[None] + delta).reshape(b, kh, kw, 1, c).astype(x.dtype)
    return deform_conv(
      x, kernels, offsets, mask, strides=strides, padding=padding, dilation=dilation, groups=c
    )
  points, mask = taps_first(offsets, mask, (kh, kw), geometry, dtype)
  return _sum_depthwise_once(x, kernel, delta, points, mask, path).astype(x.dtype)


def _checked(path: str | None) -> str | None:
  if path not in (None, *PATHS):
    raise ValueError(f'path={path!r}: expected None or one of {PATHS}')
  return path


def _delta_sum(x: jax.Array, delta: jax.Array, points: jax.Array, mask: jax.Array) -> jax.Array:
  """What the deltas (b, k, c) add to every output channel of the dense convolution: (b, u, v).

  Sampling is linear: each tap's image is first contracted with its delta, and one number is sampled.
  """
  low = delta.astype(x.dtype)  # as the shared kernel: products in the compute dtype, sums in float32
  fields = jnp.einsum('bhwc,bkc->kbhw', x, low, preferred_element_type=delta.dtype)

  @jax.checkpoint  # else automatic differentiation keeps a dozen arrays of all taps
  def add_tap(total: jax.Array, tap: Arrays) -> tuple[jax.Array, None]:
    field, points, mask = tap
    return total + mask * bilinear_sample(field[..., None], points)[..., 0], None

  return jax.lax.scan(add_tap, jnp.zeros(points.shape[1:4], delta.dtype), (fields, points, mask))[0]


# The two sums over taps. Shapes: x (b, h, w, c), kernel (k, c) with delta (b, k, c) or kernel (k, c, d),
# points (k, b, u, v, 2), mask (k, b, u, v) -> (b, u, v, c) or (b, u, v, d).


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _sum_depthwise(
  x: jax.Array, kernel: jax.Array, delta: jax.Array, points: jax.Array, mask: jax.Array, path: str | None
) -> jax.Array:
  def add_taps(at_once: int, *arrays: jax.Array) -> jax.Array:
    x, kernel, delta, points, mask = arrays
    pixels = flatten(x)

    def add_tap(total: jax.Array, tap: Arrays) -> tuple[jax.Array, None]:
      number, points, mask = tap
      return total + kernel_of_tap(kernel, delta, number) * sample_tap(pixels, points, mask, x.shape), None

    total = jnp.zeros((*points.shape[1:4], x.shape[-1]), accumulation(x))
    taps = jnp.arange(len(points)), points, mask
    return jax.lax.scan(add_tap, total, taps, unroll=at_once)[0]

  arrays = x, kernel, delta, points, mask
  one_by_one = functools.partial(add_taps, 1)
  in_turns = functools.partial(add_taps, largest_divisor(len(points), TAPS_IN_A_TURN))
  if path:
    return (in_turns if path == 'one_step_gpu' else one_by_one)(*arrays)
  return jax.lax.platform_dependent(*arrays, cpu=one_by_one, default=in_turns)


def _sum_depthwise_forward(*arguments: Any) -> tuple[jax.Array, Arrays]:
  return _sum_depthwise(*arguments), arguments[:-1]  # all but path


def _sum_depthwise_backward(path: str | None, saved: Arrays, dy: jax.Array) -> Arrays:
  return contextual_gradients.depthwise(path, saved, dy, depthwise_gradients.depthwise)


_sum_depthwise.defvjp(_sum_depthwise_forward, _sum_depthwise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _sum_dense(
  x: jax.Array, kernel: jax.Array, points: jax.Array, mask: jax.Array, path: str | None
) -> jax.Array:
  pixels, dtype = flatten(x), accumulation(x)

  def add_tap(total: jax.Array, tap: Arrays) -> tuple[jax.Array, None]:
    kernel, points, mask = tap
    sample = sample_tap(pixels, points, mask, x.shape).astype(x.dtype)
    return total + jnp.einsum('buvc,cd->buvd', sample, kernel, preferred_element_type=dtype), None

  total = jnp.zeros((*points.shape[1:4], kernel.shape[-1]), dtype)
  return jax.lax.scan(add_tap, total, (kernel, points, mask))[0]


def _sum_dense_forward(*arguments: Any) -> tuple[jax.Array, Arrays]:
  return _sum_dense(*arguments), arguments[:-1]


def _sum_dense_backward(path: str | None, saved: Arrays, dy: jax.Array) -> Arrays:
  return contextual_gradients.dense(path, saved, dy)


_sum_dense.defvjp(_sum_dense_forward, _sum_dense_backward)


# Traced once for all layers of one shape.
_sum_depthwise_once = jax.jit(_sum_depthwise, static_argnums=5)
_sum_dense_once = jax.jit(_sum_dense, static_argnums=4)
