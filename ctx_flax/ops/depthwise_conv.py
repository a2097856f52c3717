"""Plain depthwise convolution, fast on every backend.

Axes: b images, h w input grid, u v output grid, c channels.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from ctx_flax.ops.geometry import (
  Padding,
  Pads,
  Pair,
  accumulation,
  check_shape,
  output_size,
  pair,
  resolve_padding,
)

PATHS = 'shift', 'xla'


def depthwise_conv(
  x: jax.Array,
  kernel: jax.Array,
  *,
  strides: int | Pair = 1,
  padding: Padding = 0,
  dilation: int | Pair = 1,
  path: str | None = None,
) -> jax.Array:
  """Depthwise convolution with one kernel for all images or one per image.

  y[b, p, c] = sum over k of kernel[[b,] k, c] x[b, p * stride - pad + tap_k * dilation, c].

  On the CPU XLA runs a depthwise convolution as a slow generic loop; a sum of shifted, scaled copies
  of the image is fused into one pass and is many times faster. Elsewhere XLA's convolution is used.

  Args:
    x: (b, h, w, c).
    kernel: (kh, kw, 1, c), or (b, kh, kw, 1, c) for one kernel per image.
    strides, dilation: int or (rows, columns).
    padding: int, (rows, columns), ((top, bottom), (left, right)), 'SAME' or 'VALID' (XLA's).
    path: None chooses by platform; 'shift' or 'xla' forces.

  Returns:
    (b, u, v, c) in the dtype of x; accumulated in at least float32.

  Raises:
    ValueError: a wrong shape or dtype, naming the argument, its shape and the expected one.
  """
  check_shape('x', x, 'b h w c', (None, None, None, None))
  b, h, w, c = x.shape
  if jnp.ndim(kernel) == 5:
    check_shape('kernel', kernel, 'b kh kw 1 c', (b, None, None, 1, c))
  else:
    check_shape('kernel', kernel, 'kh kw 1 c', (None, None, 1, c))
  kh, kw = kernel.shape[-4:-2]
  strides, dilation = pair(strides, 'strides'), pair(dilation, 'dilation')
  pads = resolve_padding(padding, (h, w), (kh, kw), strides, dilation)
  output_size((h, w), (kh, kw), strides, pads, dilation)
  if path not in (None, *PATHS):
    raise ValueError(f'path={path!r}: expected None or one of {PATHS}')
  kernel = kernel.astype(x.dtype)
  shift = functools.partial(_shift_once, strides=strides, pads=pads, dilation=dilation)
  xla = functools.partial(_xla, strides=strides, pads=pads, dilation=dilation)
  if path is not None:
    return {'shift': shift, 'xla': xla}[path](x, kernel)
  return jax.lax.platform_dependent(x, kernel, cpu=shift, default=xla)


def _xla(x: jax.Array, kernel: jax.Array, *, strides: Pair, pads: Pads, dilation: Pair) -> jax.Array:
  if kernel.ndim == 5:
    one = functools.partial(_xla, strides=strides, pads=pads, dilation=dilation)
    return jax.vmap(lambda image, kernel: one(image[None], kernel)[0])(x, kernel)
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    strides,
    pads,
    rhs_dilation=dilation,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1],
  )


def _shift(x: jax.Array, kernel: jax.Array, *, strides: Pair, pads: Pads, dilation: Pair) -> jax.Array:
  kernels = kernel.reshape(-1, *kernel.shape[-4:-2], x.shape[-1])  # (b or 1, kh, kw, c)
  return _shift_sum(x, kernels, strides, pads, dilation)


# Traced once for all layers of one shape.
_shift_once = jax.jit(_shift, static_argnames=('strides', 'pads', 'dilation'))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _shift_sum(x: jax.Array, kernels: jax.Array, strides: Pair, pads: Pads, dilation: Pair) -> jax.Array:
  """x (b, h, w, c), kernels (b or 1, kh, kw, c) -> (b, u, v, c)."""
  b, h, w, c = x.shape
  kh, kw = kernels.shape[1:3]

  def add_taps() -> jax.Array:
    dtype = accumulation(x)
    total: jax.Array | float = 0.0
    for (i, j), window in _windows(x, (kh, kw), strides, pads, dilation):
      total = total + window.astype(dtype) * kernels[:, None, None, i, j].astype(dtype)
    return jnp.asarray(total).astype(x.dtype)

  # XLA would fuse the taps into every operation that uses the sum: three times into a LayerNorm. It does not
  # fuse what a condition guards, even one that always holds; on CPUs it ignores optimization barriers.
  never = jnp.any(kernels.ravel()[:1] > jnp.inf)
  u, v = output_size((h, w), (kh, kw), strides, pads, dilation)
  return jax.lax.cond(never, lambda: jnp.zeros((b, u, v, c), x.dtype), add_taps)


def _windows(
  x: jax.Array, kernel_size: Pair, strides: Pair, pads: Pads, dilation: Pair
) -> Iterator[tuple[Pair, jax.Array]]:
  """((row, column) of a tap, the pixels (b, u, v, c) it sees), tap after tap."""
  u, v = output_size(x.shape[1:3], kernel_size, strides, pads, dilation)
  padded = _pad(x, pads)
  for i in range(kernel_size[0]):
    for j in range(kernel_size[1]):
      top, left = i * dilation[0], j * dilation[1]
      rows = slice(top, top + (u - 1) * strides[0] + 1, strides[0])
      columns = slice(left, left + (v - 1) * strides[1] + 1, strides[1])
      yield (i, j), padded[:, rows, columns]


def _pad(x: jax.Array, pads: Pads, interior: Pair = (0, 0)) -> jax.Array:
  (top, bottom), (left, right) = pads
  edges = (0, 0, 0), (top, bottom, interior[0]), (left, right, interior[1]), (0, 0, 0)
  return jax.lax.pad(x, jnp.zeros((), x.dtype), edges)  # negative edges crop


def _shift_forward(
  x: jax.Array, kernels: jax.Array, strides: Pair, pads: Pads, dilation: Pair
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _shift_sum(x, kernels, strides, pads, dilation), (x, kernels)


def _shift_backward(
  strides: Pair, pads: Pads, dilation: Pair, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
  x, kernels = saved
  kh, kw = kernels.shape[1:3]
  # The input's gradient is again a shifted sum: dy with strides as gaps, kernels turned by 180 degrees.
  edges = []
  for n, size, k, stride, (lo, _), rate in zip(
    dy.shape[1:3], x.shape[1:3], (kh, kw), strides, pads, dilation, strict=True
  ):
    before = (k - 1) * rate - lo
    edges.append((before, size + (k - 1) * rate - before - ((n - 1) * stride + 1)))
  rows, columns = edges
  spread = _pad(dy, (rows, columns), (strides[0] - 1, strides[1] - 1))
  dx = _shift_sum(spread, kernels[:, ::-1, ::-1], (1, 1), ((0, 0), (0, 0)), dilation)
  dtype = accumulation(x)
  over = (1, 2) if kernels.shape[0] == x.shape[0] else (0, 1, 2)
  padded, dy = _pad(x, pads), dy.astype(dtype)
  span = [(n - 1) * stride + 1 for n, stride in zip(dy.shape[1:3], strides, strict=True)]

  def tap_gradient(_: None, tap: jax.Array) -> tuple[None, jax.Array]:
    # A loop, because 49 products kept for 49 sums take the memory of 49 images.
    corner = 0, tap // kw * dilation[0], tap % kw * dilation[1], 0
    window = jax.lax.dynamic_slice(padded, corner, (x.shape[0], *span, x.shape[3]))
    window = window[:, :: strides[0], :: strides[1]]
    return None, jnp.sum(window.astype(dtype) * dy, over)

  taps = jax.lax.scan(tap_gradient, None, jnp.arange(kh * kw))[1]  # (k, b, c) or (k, c)
  dkernels = jnp.moveaxis(taps, 0, -2).reshape(kernels.shape)
  return dx, dkernels.astype(kernels.dtype)


_shift_sum.defvjp(_shift_forward, _shift_backward)
