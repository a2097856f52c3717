"""Plain depthwise convolution, fast on every backend.

Axes: b images, h w input grid, u v output grid, c channels.
"""

import functools
import itertools
from collections.abc import Callable

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

Geometry = tuple[Pair, Pads, Pair]  # strides, pads, dilation
Arrays = tuple[jax.Array, jax.Array]
PATHS = 'shift', 'xla', 'mixed'
SMALL_MAP = 7 * 7  # positions; up to so many XLA's kernel gradient is slow in 16 bits too


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
  of the image is fused into one pass and is many times faster. Elsewhere XLA's convolution is used; on
  NVIDIA GPUs not for the kernel's gradient where it is slow there (`path_on_cuda`).

  Args:
    x: (b, h, w, c).
    kernel: (kh, kw, 1, c), or (b, kh, kw, 1, c) for one kernel per image.
    strides, dilation: int or (rows, columns).
    padding: int, (rows, columns), ((top, bottom), (left, right)), 'SAME' or 'VALID' (XLA's).
    path: None chooses by platform; 'shift' (shifted sums), 'xla' (XLA's convolution) or 'mixed' (the same,
      but the kernel's gradient by shifted sums) forces.

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

  def way(name: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    return lambda x, kernel: _WAYS[name](x, kernel, (strides, pads, dilation))

  if path is not None:
    return way(path)(x, kernel)
  cuda = path_on_cuda(x, kernel)
  return jax.lax.platform_dependent(x, kernel, cpu=way('shift'), cuda=way(cuda), default=way('xla'))


def path_on_cuda(x: jax.Array, kernel: jax.Array) -> str:
  """The path that path=None takes on NVIDIA GPUs, by dtype and shape.

  Measured on one H200 with 7x7 kernels on maps of 56x56 to 7x7 (docs/gpu.md, "Plain depthwise convolution
  7x7"): XLA's convolution, cuDNN's there, is the faster way forward and for the gradient of the image
  everywhere, and for that of the kernel in bfloat16 from 14x14 on. In float32, and in bfloat16 at 7x7,
  shifted sums give the gradient of the kernel 1.4 to 2.9 times as fast. Kernels per image were not measured
  and keep XLA's.
  """
  _, h, w, _ = x.shape
  if kernel.ndim == 5:
    return 'xla'
  return 'mixed' if jnp.finfo(x.dtype).bits > 16 or h * w <= SMALL_MAP else 'xla'


def _xla(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
  if kernel.ndim == 5:
    return jax.vmap(lambda image, kernel: _xla(image[None], kernel, geometry)[0])(x, kernel)
  strides, pads, dilation = geometry
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    strides,
    pads,
    rhs_dilation=dilation,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1],
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _mixed(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
  return _xla(x, kernel, geometry)


def _mixed_forward(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> tuple[jax.Array, Arrays]:
  return _mixed(x, kernel, geometry), (x, kernel)


def _mixed_backward(geometry: Geometry, saved: Arrays, dy: jax.Array) -> Arrays:
  x, kernel = saved
  (dx,) = jax.linear_transpose(lambda x: _xla(x, kernel, geometry), x)(dy)
  return dx, _kernel_gradient_by_rows(x, _flat(kernel), geometry, dy).reshape(kernel.shape)


_mixed.defvjp(_mixed_forward, _mixed_backward)


# Traced once for all layers of one shape.
@functools.partial(jax.jit, static_argnums=2)
def _shift(x: jax.Array, kernel: jax.Array, geometry: Geometry) -> jax.Array:
  return _shift_sum(x, _flat(kernel), geometry)


_WAYS: dict[str, Callable[..., jax.Array]] = {'shift': _shift, 'xla': _xla, 'mixed': _mixed}


def _flat(kernel: jax.Array) -> jax.Array:
  """([b,] kh, kw, 1, c) -> (b or 1, kh, kw, c)."""
  return kernel.reshape(-1, *kernel.shape[-4:-2], kernel.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _shift_sum(x: jax.Array, kernels: jax.Array, geometry: Geometry) -> jax.Array:
  """x (b, h, w, c), kernels (b or 1, kh, kw, c) -> (b, u, v, c)."""
  kh, kw = kernels.shape[1:3]
  strides, pads, dilation = geometry
  u, v = output_size(x.shape[1:3], (kh, kw), *geometry)

  def add_taps() -> jax.Array:
    dtype, padded = accumulation(x), _pad(x, pads)
    total: jax.Array | float = 0.0
    for i, j in itertools.product(range(kh), range(kw)):
      top, left = i * dilation[0], j * dilation[1]
      rows = slice(top, top + (u - 1) * strides[0] + 1, strides[0])
      columns = slice(left, left + (v - 1) * strides[1] + 1, strides[1])
      total = total + padded[:, rows, columns].astype(dtype) * kernels[:, None, None, i, j].astype(dtype)
    return jnp.asarray(total).astype(x.dtype)

  # XLA would fuse the taps into every operation that uses the sum: three times into a LayerNorm. It does not
  # fuse what a condition guards, even one that always holds; on CPUs it ignores optimization barriers.
  never = jnp.any(kernels.ravel()[:1] > jnp.inf)
  return jax.lax.cond(never, lambda: jnp.zeros((x.shape[0], u, v, x.shape[3]), x.dtype), add_taps)


def _pad(x: jax.Array, pads: Pads, interior: Pair = (0, 0)) -> jax.Array:
  (top, bottom), (left, right) = pads
  edges = (0, 0, 0), (top, bottom, interior[0]), (left, right, interior[1]), (0, 0, 0)
  return jax.lax.pad(x, jnp.zeros((), x.dtype), edges)  # negative edges crop


def _shift_forward(x: jax.Array, kernels: jax.Array, geometry: Geometry) -> tuple[jax.Array, Arrays]:
  return _shift_sum(x, kernels, geometry), (x, kernels)


def _shift_backward(geometry: Geometry, saved: Arrays, dy: jax.Array) -> Arrays:
  x, kernels = saved
  strides, pads, dilation = geometry
  # The input's gradient is again a shifted sum: dy with strides as gaps, kernels turned by 180 degrees.
  edges = []
  for n, size, k, stride, (lo, _), rate in zip(
    dy.shape[1:3], x.shape[1:3], kernels.shape[1:3], strides, pads, dilation, strict=True
  ):
    before = (k - 1) * rate - lo
    edges.append((before, size + (k - 1) * rate - before - ((n - 1) * stride + 1)))
  rows, columns = edges
  spread = _pad(dy, (rows, columns), (strides[0] - 1, strides[1] - 1))
  dx = _shift_sum(spread, kernels[:, ::-1, ::-1], ((1, 1), ((0, 0), (0, 0)), dilation))
  return dx, _kernel_gradient_by_taps(x, kernels, geometry, dy)


_shift_sum.defvjp(_shift_forward, _shift_backward)


def _kernel_gradient_by_taps(
  x: jax.Array, kernels: jax.Array, geometry: Geometry, dy: jax.Array
) -> jax.Array:
  """The gradient of kernels (b or 1, kh, kw, c) from dy (b, u, v, c), one tap in a turn: for CPUs."""
  strides, pads, dilation = geometry
  kh, kw = kernels.shape[1:3]
  dtype, over, span = _of_sums(x, kernels, strides, dy)
  padded, dy = _pad(x, pads), dy.astype(dtype)

  def tap_gradient(_: None, tap: jax.Array) -> tuple[None, jax.Array]:
    # A loop, because 49 products kept for 49 sums take the memory of 49 images.
    corner = 0, tap // kw * dilation[0], tap % kw * dilation[1], 0
    window = jax.lax.dynamic_slice(padded, corner, (x.shape[0], *span, x.shape[3]))
    window = window[:, :: strides[0], :: strides[1]]
    return None, jnp.sum(window.astype(dtype) * dy, over)

  taps = jax.lax.scan(tap_gradient, None, jnp.arange(kh * kw))[1]  # (k, b, c) or (k, c)
  return jnp.moveaxis(taps, 0, -2).reshape(kernels.shape).astype(kernels.dtype)


def _kernel_gradient_by_rows(
  x: jax.Array, kernels: jax.Array, geometry: Geometry, dy: jax.Array
) -> jax.Array:
  """The same, one row of taps in a turn: for GPUs.

  XLA for GPUs computes products inside of the reductions that sum them, two reductions in one kernel, and
  reads the image through the padding: it makes no array of the size of the image, reads dy four times for
  seven taps, and launches 94 kernels for 7x7 taps. One tap in a turn takes 200 and a padded copy of the
  image; on CPUs, where products are kept, it is the better one. Counted in programs compiled for an H100,
  not timed on one.
  """
  strides, pads, dilation = geometry
  kh, kw = kernels.shape[1:3]
  dtype, over, (rows, columns) = _of_sums(x, kernels, strides, dy)

  def row_gradient(_: None, i: jax.Array) -> tuple[None, jax.Array]:
    padded = _pad(x, pads)  # in here, as XLA would keep what is padded outside of the loop
    band = jax.lax.dynamic_slice_in_dim(padded, i * dilation[0], rows, 1)[:, :: strides[0]]
    windows = (band[:, :, j * dilation[1] :][:, :, : columns : strides[1]] for j in range(kw))
    return None, jnp.stack([jnp.sum(window.astype(dtype) * dy.astype(dtype), over) for window in windows], -2)

  taps = jax.lax.scan(row_gradient, None, jnp.arange(kh))[1]  # (kh, b, kw, c) or (kh, kw, c)
  return jnp.moveaxis(taps, 0, -3).reshape(kernels.shape).astype(kernels.dtype)


def _of_sums(
  x: jax.Array, kernels: jax.Array, strides: Pair, dy: jax.Array
) -> tuple[jnp.dtype, tuple[int, ...], Pair]:
  """Dtype of the sums, the axes they are over, and the rows and columns of pixels that one tap spans."""
  over = (1, 2) if kernels.shape[0] == x.shape[0] else (0, 1, 2)  # images too, unless each has a kernel
  u, v = dy.shape[1:3]
  return accumulation(x), over, ((u - 1) * strides[0] + 1, (v - 1) * strides[1] + 1)
