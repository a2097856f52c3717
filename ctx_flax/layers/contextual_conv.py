"""Convolution that adapts to each image: where it samples, and what its kernel is."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from ctx_flax.layers.ablations import check_ablate
from ctx_flax.layers.linear import normal_002, uniform_fan_in
from ctx_flax.layers.normalization import LayerNorm, normalise
from ctx_flax.layers.pooling import global_average_pool, zero_invalid
from ctx_flax.ops.contextual_conv import contextual_conv, contextual_depthwise_conv
from ctx_flax.ops.geometry import (
  Padding,
  Pads,
  Pair,
  check_shape,
  output_size,
  pair,
  resolve_padding,
)


class ContextualConv(nn.Module):
  """Contextual convolution: offsets, mask and a kernel delta predicted from the input and a context.

  Two branches read the context vector. The sampling branch ([context, x] -> 1x1 -> norm -> ReLU ->
  k x k) predicts per position an offset (dy, dx) and a weight for every tap; the kernel branch
  ([context, mean of x] -> linear -> norm -> ReLU -> linear) predicts per image a change of the kernel:
  one value per channel and tap where the convolution is depthwise, per input channel and tap, shared
  by the output channels, where it is dense. Both branches end in zeros, so that a new layer is exactly
  mask_gain * 0.5 times the plain convolution, plus the bias.

  Attributes:
    features: output channels; for depthwise the number of input channels.
    kernel_size, strides, dilation: int or (rows, columns).
    padding: as in ctx_flax.ops; None is dilation * (kernel_size // 2) on every side.
    depthwise: one kernel per channel instead of a dense one.
    use_bias: adds a bias after the convolution.
    branch_dim: hidden size of both branches; None is c // (4 * max(1, (k // 3)^2)), at least 1.
    norm: constructor of the branches' norms, called as
      norm(dtype=..., param_dtype=..., name=...)(x, train=train), for the kernel branch with epsilon=1e-5 as
      well: LayerNorm, or functools.partial(BatchNorm, axis_name=...). Flax's nn.LayerNorm and nn.BatchNorm do
      too.
    mask_gain: the mask is mask_gain * sigmoid; 2 makes a new layer equal to the plain convolution.
    ablate: names of ABLATIONS, what is left out: 'offsets' and 'kernel_delta' are then 0, 'mask' is
      mask_gain * 0.5 everywhere, as in a new layer; with 'context' the branches read zeros in its place. A
      branch that has nothing left to predict has no parameters; those that a layer was trained with are
      ignored.
    dtype: of the computation, None for that of the input and parameters. Positions stay float32.

  Source: the paper, section 3, and the authors' released code.
  """

  features: int
  kernel_size: int | tuple[int, int]
  strides: int | tuple[int, int] = 1
  padding: Padding | None = None
  dilation: int | tuple[int, int] = 1
  depthwise: bool = False
  use_bias: bool = True
  branch_dim: int | None = None
  norm: Callable[..., Any] = LayerNorm
  mask_gain: float = 1.0
  ablate: tuple[str, ...] = ()
  kernel_init: Callable[..., Any] = normal_002
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    context: jax.Array,
    *,
    train: bool = False,
    valid: jax.Array | None = None,
    padded: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Applies the layer.

    Args:
      x: (b, h, w, c).
      context: (b, e), one vector per image.
      train: whether BatchNorm branches use and update batch statistics.
      valid: (b, h, w, 1) bool, the pixels that belong to the image, or None for all; the kernel branch reads
        their mean.
      padded: (b, h, w, 1) bool, these and the image's own padding, which the sampling branch reads too; None
        for `valid`. x must be zero elsewhere.

    Returns:
      y: (b, u, v, features).
      adaptation: {'offsets': (b, u, v, k, 2), 'mask': (b, u, v, k), 'kernel_delta': (b, kh, kw, c)}, as they
        were used.

    Raises:
      ValueError: x is not (b, h, w, c) or context not (b, e), features do not fit a depthwise convolution, or
        `ablate` holds an unknown name.
    """
    check_ablate(self.ablate)
    check_shape('x', x, 'b h w c', (None, None, None, None))
    b, h, w, c = x.shape
    if jnp.ndim(context) != 2 or context.shape[0] != b:
      raise ValueError(f'context has shape {jnp.shape(context)}; expected (b, e) = ({b}, e)')
    if self.depthwise and self.features != c:
      raise ValueError(
        f'features={self.features} must equal the {c} input channels of a depthwise convolution'
      )
    kh, kw = pair(self.kernel_size, 'kernel_size')
    strides, dilation = pair(self.strides, 'strides'), pair(self.dilation, 'dilation')
    padding = self.padding
    if padding is None:
      padding = (kh // 2 * dilation[0], kw // 2 * dilation[1])
    padding = resolve_padding(padding, (h, w), (kh, kw), strides, dilation)
    shape = (kh, kw, 1, c) if self.depthwise else (kh, kw, c, self.features)
    kernel = self.param('kernel', self.kernel_init, shape, self.param_dtype)
    bias = (
      self.param('bias', initializers.zeros, (self.features,), self.param_dtype) if self.use_bias else None
    )
    x, context, kernel, bias = nn.dtypes.promote_dtype(x, context, kernel, bias, dtype=self.dtype)
    hidden = self.branch_dim or max(1, c // (4 * max(1, (kh // 3) * (kw // 3))))

    if 'context' in self.ablate:
      context = jnp.zeros_like(context)
    if {'offsets', 'mask'} <= set(self.ablate):
      grid = b, *output_size((h, w), (kh, kw), strides, padding, dilation), kh * kw
      offsets, mask = jnp.zeros((*grid, 2), x.dtype), jnp.zeros(grid, x.dtype)
    else:
      offsets, mask = self._sampling_branch(
        x, context, hidden, (kh, kw), strides, padding, dilation, train, valid if padded is None else padded
      )
    if 'offsets' in self.ablate:
      offsets = jnp.zeros_like(offsets)
    if 'mask' in self.ablate:
      mask = jnp.full_like(mask, 0.5 * self.mask_gain)
    if 'kernel_delta' in self.ablate:
      kernel_delta = jnp.zeros((b, kh, kw, c), x.dtype)
    else:
      kernel_delta = self._kernel_branch(x, context, hidden, (kh, kw), train, valid)
    op = contextual_depthwise_conv if self.depthwise else contextual_conv
    y = op(x, kernel, kernel_delta, offsets, mask, strides=strides, padding=padding, dilation=dilation)
    if bias is not None:
      y = y + bias.reshape(1, 1, 1, -1)
    return y, {'offsets': offsets, 'mask': mask, 'kernel_delta': kernel_delta}

  def _sampling_branch(
    self,
    x: jax.Array,
    context: jax.Array,
    hidden: int,
    kernel_size: Pair,
    strides: Pair,
    padding: Pads,
    dilation: Pair,
    train: bool,
    padded: jax.Array | None,
  ) -> tuple[jax.Array, jax.Array]:
    z = _ContextLinear(hidden, self.dtype, self.param_dtype, name='sampling_proj')(context, x)
    norm = self.norm(dtype=self.dtype, param_dtype=self.param_dtype, name='sampling_norm')
    z = zero_invalid(nn.relu(normalise(norm, z, train=train)), padded)
    k = kernel_size[0] * kernel_size[1]
    z = nn.Conv(
      3 * k,
      kernel_size,
      strides,
      padding,
      kernel_dilation=dilation,
      kernel_init=initializers.zeros,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name='sampling_out',
    )(z)
    # Channels 2t and 2t + 1 are dy and dx of tap t; the last k are the mask.
    offsets = z[..., : 2 * k].reshape(*z.shape[:3], k, 2)
    return offsets, self.mask_gain * nn.sigmoid(z[..., 2 * k :])

  def _kernel_branch(
    self,
    x: jax.Array,
    context: jax.Array,
    hidden: int,
    kernel_size: Pair,
    train: bool,
    valid: jax.Array | None,
  ) -> jax.Array:
    z = _ContextLinear(hidden, self.dtype, self.param_dtype, name='kernel_proj')(
      context, global_average_pool(x, valid)
    )
    # LayerNorm's eps is 1e-5 here and 1e-6 above, as in the released code; BatchNorm's is 1e-5 in both.
    norm = self.norm(epsilon=1e-5, dtype=self.dtype, param_dtype=self.param_dtype, name='kernel_norm')
    z = nn.relu(normalise(norm, z, train=train))
    b, c = x.shape[0], x.shape[-1]
    z = nn.Dense(
      c * kernel_size[0] * kernel_size[1],
      kernel_init=initializers.zeros,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name='kernel_out',
    )(z)
    return jnp.transpose(z.reshape(b, c, *kernel_size), (0, 2, 3, 1))  # outputs: channel, row, column


class _ContextLinear(nn.Module):
  """Linear layer on [context, x] without the concatenation: the context's part is added to every pixel."""

  features: int
  dtype: Any
  param_dtype: Any

  @nn.compact
  def __call__(self, context: jax.Array, x: jax.Array) -> jax.Array:
    e, c = context.shape[-1], x.shape[-1]
    init = uniform_fan_in(e + c)
    kernel = self.param('kernel', init, (e + c, self.features), self.param_dtype)
    bias = self.param('bias', init, (self.features,), self.param_dtype)
    context, x, kernel, bias = nn.dtypes.promote_dtype(context, x, kernel, bias, dtype=self.dtype)
    shared = context @ kernel[:e] + bias[None]
    return x @ kernel[e:] + jax.lax.expand_dims(shared, range(1, x.ndim - 1))
