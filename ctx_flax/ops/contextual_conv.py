"""Contextual convolutions in one step: taps are sampled, weighted and added up one after the other.

Deformable, modulated, and with a kernel that differs from image to image by a small delta. Nothing of
size b * u * v * k * c exists at any time, neither forward nor backward: the gradient rules sample the
taps anew. docs/one_step.md explains the arithmetic and the memory. Axes: b images, h w input grid, u v
output grid, k taps (row-major), c in, d out.

Source: the paper's supplementary, section 3 ("efficient computation"), for the depthwise case; the
dense case uses that a delta shared by all output channels adds one number per image and position.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.ops import contextual_gradients, contextual_sums, gpu_dense, gpu_depthwise
from ctx_flax.ops.deform_conv import deform_conv
from ctx_flax.ops.geometry import (
  Padding,
  Pair,
  Window,
  accumulation,
  check_sampling,
  check_shape,
  window_of,
)

Arrays = tuple[jax.Array, ...]
PATHS = 'one_step', 'one_step_cpu', 'one_step_gpu', 'two_steps'


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
    path: None chooses by platform; 'one_step', 'one_step_cpu' (gradients a few images at a time),
      'one_step_gpu' (all taps of a few images at a time) or 'two_steps' (materialises all taps and kernels)
      forces.

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
  window = window_of(x, (kh, kw), strides, padding, dilation)
  check_sampling(x, offsets, mask, window)
  if _checked(path) == 'two_steps':
    dtype = accumulation(x)
    kernels = (kernel.astype(dtype)[None] + kernel_delta.astype(dtype)[..., None]).astype(x.dtype)
    return deform_conv(x, kernels, offsets, mask, strides=strides, padding=padding, dilation=dilation)
  delta = kernel_delta.astype(accumulation(x)).reshape(b, kh * kw, c)
  kernel = kernel.astype(x.dtype).reshape(kh * kw, c, d)
  return _contextual_sum_once(x, kernel, delta, offsets, _weights(mask, offsets), 'dense', window, path)


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
  window = window_of(x, (kh, kw), strides, padding, dilation)
  check_sampling(x, offsets, mask, window)
  dtype = accumulation(x)
  kernel = kernel.astype(dtype).reshape(kh * kw, c)
  delta = jnp.zeros((b, 1, 1, 1), dtype) if kernel_delta is None else kernel_delta.astype(dtype)
  delta = jnp.broadcast_to(delta, (b, kh, kw, c)).reshape(b, kh * kw, c)
  if _checked(path) == 'two_steps':
    kernels = (kernel[None] + delta).reshape(b, kh, kw, 1, c).astype(x.dtype)
    return deform_conv(
      x, kernels, offsets, mask, strides=strides, padding=padding, dilation=dilation, groups=c
    )
  return _contextual_sum_once(x, kernel, delta, offsets, _weights(mask, offsets), 'depthwise', window, path)


def _checked(path: str | None) -> str | None:
  if path not in (None, *PATHS):
    raise ValueError(f'path={path!r}: expected None or one of {PATHS}')
  return path


def _weights(mask: jax.Array | None, offsets: jax.Array) -> jax.Array:
  return jnp.ones(offsets.shape[:-1], offsets.dtype) if mask is None else mask


# The sums over taps and their gradients, by the kind of convolution and by path. Shapes: x (b, h, w, c),
# kernel (k, c) or dense (k, c, d), delta (b, k, c), offsets (b, u, v, k, 2), mask (b, u, v, k)
# -> (b, u, v, c or d).
Ways = Mapping[str, Callable[..., Any]]
SUMS: Mapping[str, Ways] = {
  'depthwise': {
    'one_step': contextual_sums.depthwise,
    'one_step_cpu': contextual_sums.depthwise,
    'one_step_gpu': gpu_depthwise.depthwise_sum,
  },
  'dense': {
    'one_step': contextual_sums.dense,
    'one_step_cpu': contextual_sums.dense,
    'one_step_gpu': gpu_dense.dense_sum,
  },
}
GRADIENTS: Mapping[str, Ways] = {
  'depthwise': {
    'one_step': contextual_gradients.depthwise,
    'one_step_cpu': functools.partial(contextual_gradients.depthwise, cpu=True),
    'one_step_gpu': gpu_depthwise.depthwise_gradients,
  },
  'dense': {
    'one_step': contextual_gradients.dense,
    'one_step_cpu': functools.partial(contextual_gradients.dense, cpu=True),
    'one_step_gpu': gpu_dense.dense_gradients,
  },
}


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _contextual_sum(
  x: jax.Array,
  kernel: jax.Array,
  delta: jax.Array,
  offsets: jax.Array,
  mask: jax.Array,
  kind: str,
  window: Window,
  path: str | None,
) -> jax.Array:
  return _by_platform(SUMS[kind], window, path, x, kernel, delta, offsets, mask)


def _contextual_sum_forward(*arguments: Any) -> tuple[jax.Array, Arrays]:
  return _contextual_sum(*arguments), arguments[:5]


def _contextual_sum_backward(
  kind: str, window: Window, path: str | None, saved: Arrays, dy: jax.Array
) -> Arrays:
  return _by_platform(GRADIENTS[kind], window, path, *saved, dy.astype(accumulation(saved[0])))


_contextual_sum.defvjp(_contextual_sum_forward, _contextual_sum_backward)
# Traced once for all layers of one shape.
_contextual_sum_once = jax.jit(_contextual_sum, static_argnums=(5, 6, 7))


def _by_platform(ways: Ways, window: Window, path: str | None, *arrays: jax.Array) -> Any:
  images = arrays[0].shape[0]
  if not jax.export.is_symbolic_dim(images) and images == 0:  # a turn of the others has at least one image
    path = 'one_step'
  if path:
    return ways[path](*arrays, window=window)
  on_cpu, elsewhere = (
    functools.partial(ways[name], window=window) for name in ('one_step_cpu', 'one_step_gpu')
  )
  return jax.lax.platform_dependent(*arrays, cpu=on_cpu, default=elsewhere)
