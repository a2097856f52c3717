"""Every operation once more: slow, obvious float64 NumPy, one Python loop per index.

Written from the definitions alone and sharing nothing with ctx_flax.ops, so that an error in one shows.
Pixel centres lie on integers; each of the four corners outside the image counts as zero; taps run in
row-major order; an offset is (dy, dx) in input pixels.
"""

import itertools
import math

import numpy as np


def sample(image, y, x):
  """The value of one image (h, w, c) at one real position."""
  h, w, c = image.shape
  if math.isnan(y) or math.isnan(x):
    return np.full(c, np.nan)
  if math.isinf(y) or math.isinf(x):
    return np.zeros(c)
  top, left = math.floor(y), math.floor(x)
  value = np.zeros(c)
  for row, row_weight in ((top, 1 - (y - top)), (top + 1, y - top)):
    for column, column_weight in ((left, 1 - (x - left)), (left + 1, x - left)):
      if 0 <= row < h and 0 <= column < w:
        value += row_weight * column_weight * image[row, column]
  return value


def bilinear_sample(image, points):
  """Images (b, h, w, c) at points (b, ..., 2) -> (b, ..., c)."""
  out = np.zeros((*points.shape[:-1], image.shape[-1]))
  for index in np.ndindex(points.shape[:-1]):
    out[index] = sample(image[index[0]].astype(np.float64), *points[index].astype(np.float64))
  return out


def pair(value):
  return (value, value) if isinstance(value, int) else tuple(value)


def geometry(size, kernel, stride, padding, dilation):
  """Along one axis: (rows added before the image, length of the output)."""
  reach = (kernel - 1) * dilation + 1
  if padding == 'SAME':
    length = math.ceil(size / stride)
    return max((length - 1) * stride + reach - size, 0) // 2, length
  before, after = (0, 0) if padding == 'VALID' else pair(padding)
  return before, (size + before + after - reach) // stride + 1


def grid(x, kernel_size, strides, padding, dilation):
  """For both axes: (rows added before the image, length of the output, stride, dilation)."""
  paddings = (padding, padding) if isinstance(padding, str) else pair(padding)
  axes = zip(x.shape[1:3], kernel_size, pair(strides), paddings, pair(dilation), strict=True)
  return [(*geometry(*axis), axis[2], axis[4]) for axis in axes]


def deform_conv(x, kernel, offsets, mask=None, *, strides=1, padding=0, dilation=1, groups=1, bias=None):
  """y[n, p, q, o] = bias[o] + sum over taps and inputs of kernel * mask * sample."""
  b, _, _, c = x.shape
  if kernel.ndim == 4:
    kernel = np.stack([kernel] * b)
  _, kh, kw, _, d = kernel.shape
  if offsets.ndim == 5:
    offsets = offsets[:, :, :, None]
  g, k = offsets.shape[3:5]
  if mask is None:
    mask = np.ones(offsets.shape[:-1])
  mask = mask.reshape((*mask.shape[:3], g, k))
  (top, u, row_stride, row_step), (left, v, column_stride, column_step) = grid(
    x, (kh, kw), strides, padding, dilation
  )
  out = np.zeros((b, u, v, d))
  for n, p, q, i, j in itertools.product(range(b), range(u), range(v), range(kh), range(kw)):
    t = i * kw + j
    column = np.zeros(c)
    for s in range(g):
      y = p * row_stride - top + i * row_step + offsets[n, p, q, s, t, 0]
      z = q * column_stride - left + j * column_step + offsets[n, p, q, s, t, 1]
      channels = slice(s * c // g, (s + 1) * c // g)
      column[channels] = mask[n, p, q, s, t] * sample(x[n], y, z)[channels]
    for s in range(groups):
      channels, features = (slice(s * m // groups, (s + 1) * m // groups) for m in (c, d))
      out[n, p, q, features] += column[channels] @ kernel[n, i, j, :, features]
  return out if bias is None else out + bias


def contextual_conv(x, kernel, kernel_delta, offsets, mask=None, **options):
  """The definition itself: image n is convolved with the full kernel W[t, i, o] + dW[n, t, i]."""
  return deform_conv(x, kernel[None] + kernel_delta[..., None], offsets, mask, **options)


def contextual_depthwise_conv(x, kernel, kernel_delta, offsets, mask=None, **options):
  """The same with one input per output: tap t of channel i weighs W[t, i] + dW[n, t, i]."""
  b, _, _, c = x.shape
  kh, kw = kernel.shape[:2]
  if kernel_delta is None:
    kernel_delta = np.zeros((b, kh, kw, c))
  diagonal = np.zeros((b, kh, kw, c, c))
  for n, i, j, channel in np.ndindex(b, kh, kw, c):
    diagonal[n, i, j, channel, channel] = kernel[i, j, 0, channel] + kernel_delta[n, i, j, channel]
  return deform_conv(x, diagonal, offsets, mask, **options)


def depthwise_conv(x, kernel, *, strides=1, padding=0, dilation=1):
  """y[n, p, q, i] = sum over taps of kernel[t, i] * x at the tap, zero outside the image."""
  b, h, w, c = x.shape
  if kernel.ndim == 4:
    kernel = np.stack([kernel] * b)
  kh, kw = kernel.shape[1:3]
  (top, u, row_stride, row_step), (left, v, column_stride, column_step) = grid(
    x, (kh, kw), strides, padding, dilation
  )
  out = np.zeros((b, u, v, c))
  for n, p, q, i, j in itertools.product(range(b), range(u), range(v), range(kh), range(kw)):
    row = p * row_stride - top + i * row_step
    column = q * column_stride - left + j * column_step
    if 0 <= row < h and 0 <= column < w:
      out[n, p, q] += kernel[n, i, j, 0] * x[n, row, column]
  return out


def slope(function, arguments, name, direction, cotangent, *, step=1e-4, one_sided=False):
  """Derivative of sum(cotangent * function(**arguments)) along a direction of one argument."""

  def value(distance):
    moved = {**arguments, name: arguments[name] + distance * direction}
    return float(np.sum(cotangent * function(**moved)))

  return (value(step) - value(0.0)) / step if one_sided else (value(step) - value(-step)) / (2 * step)


def temporal_shift(x, fold_div=8):
  """(b, t, h, w, c): channels that move by one frame, later frames' first."""
  b, t, _, _, c = x.shape
  n, y = c // fold_div, np.zeros_like(x)
  for i, frame, channel in itertools.product(range(b), range(t), range(c)):
    source = frame + (1 if channel < n else -1 if channel < 2 * n else 0)
    if 0 <= source < t:
      y[i, frame, :, :, channel] = x[i, source, :, :, channel]
  return y
