"""Contextual convolutions in one step: taps are sampled, weighted and added up one after the other.

Deformable, modulated, and with a kernel that differs from image to image by a small delta. Nothing of
size b * u * v * k * c exists at any time, neither forward nor backward: the gradient rules sample the
taps anew. Axes: b images, h w input grid, u v output grid, k taps (row-major), c in, d out.

Source: the paper's supplementary, section 3 ("efficient computation"), for the depthwise case; the
dense case uses that a delta shared by all output channels adds one number per image and position.
"""

import jax
import jax.numpy as jnp

from ctx_flax.ops.bilinear import CORNERS, corner_weight, corners, gather
from ctx_flax.ops.deform_conv import accumulation, deform_conv
from ctx_flax.ops.geometry import check_shape, output_size, pair, resolve_padding, sampling_points

PATHS = 'one_step', 'two_steps'


def contextual_conv(
  x, kernel, kernel_delta, offsets, mask=None, *, strides=1, padding=0, dilation=1, path=None
):
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
    path: None chooses; 'one_step' or 'two_steps' (materialises all taps and kernels) forces.

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
  geometry = _geometry(x, (kh, kw), strides, padding, dilation)
  _check_sampling(x, (kh, kw), offsets, mask, geometry)
  if _choose(path) == 'two_steps':
    dtype = accumulation(x)
    kernels = (kernel.astype(dtype)[None] + kernel_delta.astype(dtype)[..., None]).astype(x.dtype)
    return deform_conv(x, kernels, offsets, mask, strides=strides, padding=padding, dilation=dilation)
  points, mask = _taps_first(offsets, mask, (kh, kw), geometry, accumulation(x))
  delta = jnp.moveaxis(kernel_delta.astype(accumulation(x)).reshape(b, kh * kw, c), 1, 0)
  y = _sum_dense(x, kernel.astype(x.dtype).reshape(kh * kw, c, d), delta, points, mask)
  return y.astype(x.dtype)


def contextual_depthwise_conv(
  x, kernel, kernel_delta, offsets, mask=None, *, strides=1, padding=0, dilation=1, path=None
):
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
    path: None chooses; 'one_step' or 'two_steps' (materialises all taps) forces.

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
  geometry = _geometry(x, (kh, kw), strides, padding, dilation)
  _check_sampling(x, (kh, kw), offsets, mask, geometry)
  dtype = accumulation(x)
  kernels = jnp.broadcast_to(kernel.astype(dtype).reshape(1, kh, kw, c), (b, kh, kw, c))
  if kernel_delta is not None:
    kernels = kernels + kernel_delta.astype(dtype)
  if _choose(path) == 'two_steps':
    kernels = kernels.astype(x.dtype)[:, :, :, None]
    return deform_conv(
      x, kernels, offsets, mask, strides=strides, padding=padding, dilation=dilation, groups=c
    )
  points, mask = _taps_first(offsets, mask, (kh, kw), geometry, accumulation(x))
  y = _sum_depthwise(x, jnp.moveaxis(kernels.reshape(b, kh * kw, c), 1, 0), points, mask)
  return y.astype(x.dtype)


def _choose(path):
  if path not in (None, *PATHS):
    raise ValueError(f'path={path!r}: expected None or one of {PATHS}')
  return path or 'one_step'


def _geometry(x, kernel_size, strides, padding, dilation):
  strides, dilation = pair(strides, 'strides'), pair(dilation, 'dilation')
  return strides, resolve_padding(padding, x.shape[1:3], kernel_size, strides, dilation), dilation


def _check_sampling(x, kernel_size, offsets, mask, geometry):
  u, v = output_size(x.shape[1:3], kernel_size, *geometry)
  k = kernel_size[0] * kernel_size[1]
  check_shape('offsets', offsets, 'b u v k 2', (x.shape[0], u, v, k, 2))
  if mask is not None:
    check_shape('mask', mask, 'b u v k', (x.shape[0], u, v, k))


def _taps_first(offsets, mask, kernel_size, geometry, dtype):
  """Points (k, b, u, v, 2) and mask (k, b, u, v): the loop over taps reads slices.

  Both in the dtype that the sums are kept in, so that the gradient rules meet one dtype beside that of x.
  """
  points = jnp.moveaxis(sampling_points(offsets, kernel_size, *geometry), 3, 0).astype(dtype)
  if mask is None:
    return points, jnp.ones(points.shape[:-1], points.dtype)
  return points, jnp.moveaxis(mask.astype(points.dtype), 3, 0)


# The two sums over taps. Shapes: x (b, h, w, c), kernels (k, b, c) or kernel (k, c, d) with delta
# (k, b, c), points (k, b, u, v, 2), mask (k, b, u, v) -> (b, u, v, c) or (b, u, v, d).


@jax.custom_vjp
def _sum_depthwise(x, kernels, points, mask):
  pixels = _flatten(x)

  def add_tap(total, tap):
    kernel, points, mask = tap
    return total + kernel[:, None, None] * _sample(pixels, points, mask, x.shape), None

  total = jnp.zeros((*points.shape[1:4], x.shape[-1]), accumulation(x))
  return jax.lax.scan(add_tap, total, (kernels, points, mask))[0]


def _sum_depthwise_forward(x, kernels, points, mask):
  return _sum_depthwise(x, kernels, points, mask), (x, kernels, points, mask)


def _sum_depthwise_backward(saved, dy):
  x, kernels, points, mask = saved
  pixels = _flatten(x)

  def tap_gradients(dx, tap):
    kernel, points, mask = tap
    # One scatter serves two gradients: of x (times the kernel) and of the kernel (times x).
    dsample = dy * kernel[:, None, None]
    dpoints, dmask, scattered = _tap_gradients(pixels, points, mask, dsample, dy, x.shape)
    dkernel = jnp.sum(pixels.astype(dy.dtype) * scattered, 1)
    return dx + kernel[:, None] * scattered, (dkernel, dpoints, dmask)

  dx = jnp.zeros(pixels.shape, dy.dtype)
  dx, (dkernels, dpoints, dmask) = jax.lax.scan(tap_gradients, dx, (kernels, points, mask))
  return dx.reshape(x.shape).astype(x.dtype), dkernels, dpoints, dmask


_sum_depthwise.defvjp(_sum_depthwise_forward, _sum_depthwise_backward)


@jax.custom_vjp
def _sum_dense(x, kernel, delta, points, mask):
  pixels, dtype = _flatten(x), accumulation(x)

  def add_tap(total, tap):
    kernel, delta, points, mask = tap
    sample = _sample(pixels, points, mask, x.shape)
    shared = jnp.einsum('buvc,cd->buvd', sample.astype(x.dtype), kernel, preferred_element_type=dtype)
    own = jnp.einsum('buvc,bc->buv', sample, delta)
    return total + shared + own[..., None], None

  total = jnp.zeros((*points.shape[1:4], kernel.shape[-1]), dtype)
  return jax.lax.scan(add_tap, total, (kernel, delta, points, mask))[0]


def _sum_dense_forward(x, kernel, delta, points, mask):
  return _sum_dense(x, kernel, delta, points, mask), (x, kernel, delta, points, mask)


def _sum_dense_backward(saved, dy):
  x, kernel, delta, points, mask = saved
  pixels, dtype = _flatten(x), dy.dtype
  low = dy.astype(x.dtype)  # matrix products in the compute dtype, sums in float32
  dy_all = jnp.sum(dy, -1)  # a delta reaches every output channel

  def tap_gradients(dx, tap):
    kernel, delta, points, mask = tap
    sample = _sample(pixels, points, mask, x.shape)
    dkernel = jnp.einsum('buvc,buvd->cd', sample.astype(x.dtype), low, preferred_element_type=dtype)
    ddelta = jnp.einsum('buvc,buv->bc', sample, dy_all)
    dsample = jnp.einsum('buvd,cd->buvc', low, kernel, preferred_element_type=dtype)
    dsample = dsample + dy_all[..., None] * delta[:, None, None]
    dpoints, dmask, scattered = _tap_gradients(pixels, points, mask, dsample, dsample, x.shape)
    return dx + scattered, (dkernel.astype(kernel.dtype), ddelta, dpoints, dmask)

  dx = jnp.zeros(pixels.shape, dtype)
  dx, gradients = jax.lax.scan(tap_gradients, dx, (kernel, delta, points, mask))
  return dx.reshape(x.shape).astype(x.dtype), *gradients


_sum_dense.defvjp(_sum_dense_forward, _sum_dense_backward)


# One tap: points (b, u, v, 2), mask (b, u, v), pixels (b, h * w, c).


def _flatten(x):
  b, h, w, c = x.shape
  return x.reshape(b, h * w, c)


def _sample(pixels, points, mask, shape):
  """Modulated bilinear samples (b, u, v, c)."""
  index, fraction, inside = corners(points, *shape[1:3])
  return sum(
    (mask * corner_weight(fraction, inside, corner))[..., None] * gather(pixels, index[corner])
    for corner in CORNERS
  )


def _tap_gradients(pixels, points, mask, dsample, spread, shape):
  """Transposes one sampled tap, given the cotangent dsample (b, u, v, c) of its samples.

  Returns:
    The gradients of the points (b, u, v, 2) and of the mask (b, u, v), and the sum over positions
    (b, h * w, c) of mask * interpolation weight * `spread` (b, u, v, c) on the pixels that were sampled.
  """
  index, fraction, inside = corners(points, *shape[1:3])
  weight = jnp.stack([corner_weight(fraction, inside, corner) for corner in CORNERS])

  def one_corner(scattered, corner):
    index, weight = corner
    # How much of the cotangent this corner's pixel explains: the only sum over channels that is needed.
    along = jnp.sum(dsample * gather(pixels, index), -1)
    values = (mask * weight)[..., None] * spread
    return jax.vmap(_add_at)(scattered, index, values), along

  # A loop over the corners rather than four copies: one gathered and one scattered array live at a time.
  scattered = jnp.zeros((*pixels.shape[:2], spread.shape[-1]), spread.dtype)
  stacked = jnp.stack([index[corner] for corner in CORNERS]), weight
  scattered, along = jax.lax.scan(one_corner, scattered, stacked)
  dy = dx = 0.0
  for (i, j), value in zip(CORNERS, along, strict=True):
    visible = value * inside[0][i] * inside[1][j]
    dy += (1 if i else -1) * (fraction[1] if j else 1 - fraction[1]) * visible
    dx += (1 if j else -1) * (fraction[0] if i else 1 - fraction[0]) * visible
  return mask[..., None] * jnp.stack([dy, dx], -1), jnp.sum(weight * along, 0), scattered


def _add_at(pixels, index, values):
  return pixels.at[index.reshape(-1)].add(values.reshape(-1, values.shape[-1]), mode='promise_in_bounds')
