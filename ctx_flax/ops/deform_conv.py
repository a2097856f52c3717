"""Deformable convolution in two steps: sample every tap, then contract with the kernel.

The readable reference and the general case; the fast paths for contextual convolutions are in
contextual_conv.py. Axes: b images, h w input grid, u v output grid, k taps (row-major), c in, d out,
g offset groups.
"""

import jax
import jax.numpy as jnp

from ctx_flax.ops.bilinear import bilinear_sample
from ctx_flax.ops.geometry import (
  Padding,
  Pair,
  accumulation,
  check_shape,
  is_integer,
  output_size,
  pair,
  resolve_padding,
  sampling_points,
)


def deform_conv(
  x: jax.Array,
  kernel: jax.Array,
  offsets: jax.Array,
  mask: jax.Array | None = None,
  *,
  strides: int | Pair = 1,
  padding: Padding = 0,
  dilation: int | Pair = 1,
  groups: int = 1,
  bias: jax.Array | None = None,
) -> jax.Array:
  """Modulated deformable convolution (DCNv2), with one kernel for all images or one per image.

  y[p, d] = bias[d] + sum over k, c of kernel[k, c, d] mask[p, k] bilinear(x[:, :, c], p * stride - pad
  + tap_k * dilation + offset[p, k]). With a shared kernel it equals torchvision's deform_conv2d in
  NHWC with the offsets of tap k at [..., k, (dy, dx)].

  Args:
    x: (b, h, w, c).
    kernel: (kh, kw, c / groups, d), or (b, kh, kw, c / groups, d) for one kernel per image.
    offsets: (b, u, v, k, 2), or (b, u, v, g, k, 2) for g offset groups; (dy, dx) in input pixels,
      taps row-major.
    mask: (b, u, v, k) or (b, u, v, g, k) as the offsets, or None for ones.
    strides, dilation: int or (rows, columns).
    padding: int, (rows, columns), ((top, bottom), (left, right)), 'SAME' or 'VALID' (XLA's).
    groups: number of convolution groups.
    bias: (d,) or None.

  Returns:
    (b, u, v, d) in the dtype of x; accumulated in at least float32.

  Raises:
    ValueError: a wrong shape or dtype, naming the argument, its shape and the expected one.

  Reference: https://arxiv.org/abs/1811.11168.
  """
  check_shape('x', x, 'b h w c', (None, None, None, None))
  b, h, w, c = x.shape
  per_image = jnp.ndim(kernel) == 5
  lead, axes = ((b,), 'b ') if per_image else ((), '')
  if not is_integer(groups) or groups < 1 or c % groups:
    raise ValueError(f'groups={groups!r} must be a positive divisor of the {c} channels of x')
  check_shape('kernel', kernel, axes + 'kh kw c/groups d', (*lead, None, None, c // groups, None))
  kh, kw, _, d = kernel.shape[-4:]
  if d % groups:
    raise ValueError(
      f'kernel has {d} output channels (shape {kernel.shape}), not divisible by groups={groups}'
    )
  strides, dilation = pair(strides, 'strides'), pair(dilation, 'dilation')
  pads = resolve_padding(padding, (h, w), (kh, kw), strides, dilation)
  u, v = output_size((h, w), (kh, kw), strides, pads, dilation)
  g = _offset_groups(offsets, mask, (b, u, v), kh * kw, c)
  if bias is not None:
    check_shape('bias', bias, 'd', (d,))

  points = sampling_points(offsets, (kh, kw), strides, pads, dilation).reshape(b, u, v, g, kh * kw, 2)
  if mask is not None:
    mask = mask.reshape(b, u, v, g, kh * kw)
  if g == 1:  # without the axis, with which XLA's gradients take three times as long on CPUs
    taps = _modulated(bilinear_sample(x, points[:, :, :, 0]), None if mask is None else mask[:, :, :, 0])
  else:
    taps = jax.vmap(bilinear_sample, in_axes=(3, 3), out_axes=4)(x.reshape(b, h, w, g, c // g), points)
    taps = _modulated(taps, None if mask is None else mask.swapaxes(3, 4))
  # The depthwise case apart: as a general product its gradient takes several times as long.
  depthwise = groups == c == d
  spec = '...kg,kg->...g' if depthwise else '...kgc,kcgd->...gd'
  taps = taps.reshape(b, u, v, kh * kw, *((c,) if depthwise else (groups, c // groups)))
  channels = (c,) if depthwise else (c // groups, groups, d // groups)
  kernel = kernel.reshape(*kernel.shape[:-4], kh * kw, *channels).astype(x.dtype)

  def contract(taps: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.einsum(spec, taps, kernel, preferred_element_type=accumulation(x))

  y = (jax.vmap(contract) if per_image else contract)(taps, kernel).reshape(b, u, v, d)
  if bias is not None:
    y = y + bias.astype(y.dtype).reshape(1, 1, 1, d)
  return y.astype(x.dtype)


def _offset_groups(
  offsets: jax.Array, mask: jax.Array | None, positions: tuple[int, int, int], k: int, c: int
) -> int:
  """g, after checking the shapes of offsets and mask at positions (b, u, v) of c channels."""
  g, grouped = 1, jnp.ndim(offsets) == 6
  if grouped:
    g = offsets.shape[3]
    check_shape('offsets', offsets, 'b u v g k 2', (*positions, None, k, 2))
    if g < 1 or c % g:
      raise ValueError(f'offsets has shape {offsets.shape}: its {g} offset groups do not divide {c} channels')
  else:
    check_shape('offsets', offsets, 'b u v k 2', (*positions, k, 2))
  if mask is not None:
    axes, lead = ('b u v g k', (*positions, g)) if grouped else ('b u v k', positions)
    check_shape('mask', mask, axes, (*lead, k))
  return g


def _modulated(taps: jax.Array, mask: jax.Array | None) -> jax.Array:
  """taps (..., c) times mask (...), in the dtype of the taps."""
  if mask is None:
    return taps
  dtype = accumulation(taps)
  return (taps.astype(dtype) * mask.astype(dtype)[..., None]).astype(taps.dtype)
