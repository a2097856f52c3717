"""Deformable convolution as a layer."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from ctx_flax.ops.deform_conv import deform_conv
from ctx_flax.ops.geometry import Padding, check_shape, is_integer, pair, resolve_padding


class DeformConv(nn.Module):
  """Modulated deformable convolution (DCNv2): offsets and mask are predicted from the input.

  One k x k convolution, initially zero, predicts for every offset group, output position and tap an
  offset (dy, dx) in pixels and a weight, mask_gain * sigmoid.

  Attributes:
    features: output channels.
    kernel_size, strides, dilation: int or (rows, columns).
    padding: as in ctx_flax.ops; None is dilation * (kernel_size // 2) on every side.
    groups: convolution groups.
    offset_groups: groups of input channels that share offsets and mask.
    mask_gain: 1 as in DCNv2, where a new layer is half the plain convolution; 2 makes it the plain one.

  Raises:
    ValueError: x is not (b, h, w, c), or groups or offset_groups do not divide the channels.

  Reference: https://arxiv.org/abs/1811.11168.
  """

  features: int
  kernel_size: int | tuple[int, int]
  strides: int | tuple[int, int] = 1
  padding: Padding | None = None
  dilation: int | tuple[int, int] = 1
  groups: int = 1
  offset_groups: int = 1
  use_bias: bool = True
  mask_gain: float = 1.0
  kernel_init: Callable[..., Any] = initializers.lecun_normal()
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """(b, h, w, c) -> (b, u, v, features)."""
    check_shape('x', x, 'b h w c', (None, None, None, None))
    _, h, w, c = x.shape
    for name in ('groups', 'offset_groups'):
      number = getattr(self, name)
      if not is_integer(number) or number < 1 or c % number:
        raise ValueError(f'{name}={getattr(self, name)} must be a positive divisor of the {c} input channels')
    kh, kw = pair(self.kernel_size, 'kernel_size')
    strides, dilation = pair(self.strides, 'strides'), pair(self.dilation, 'dilation')
    padding = self.padding
    if padding is None:
      padding = (kh // 2 * dilation[0], kw // 2 * dilation[1])
    padding = resolve_padding(padding, (h, w), (kh, kw), strides, dilation)
    g, k = self.offset_groups, kh * kw
    shape = kh, kw, c // self.groups, self.features
    kernel = self.param('kernel', self.kernel_init, shape, self.param_dtype)
    bias = (
      self.param('bias', initializers.zeros, (self.features,), self.param_dtype) if self.use_bias else None
    )
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    sampling = nn.Conv(
      3 * g * k,
      (kh, kw),
      strides,
      padding,
      kernel_dilation=dilation,
      kernel_init=initializers.zeros,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name='sampling',
    )(x)
    grid = sampling.shape[:3]
    offsets = sampling[..., : 2 * g * k].reshape(*grid, g, k, 2)
    mask = self.mask_gain * nn.sigmoid(sampling[..., 2 * g * k :]).reshape(*grid, g, k)
    return deform_conv(
      x,
      kernel,
      offsets,
      mask,
      strides=strides,
      padding=padding,
      dilation=dilation,
      groups=self.groups,
      bias=bias,
    )
