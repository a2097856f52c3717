"""Residual blocks of the two network families, plain and contextual."""

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from ctx_flax.layers.contextual_conv import ContextualConv
from ctx_flax.layers.linear import DepthwiseConv, PointwiseConv, he_fan_out, normal_002
from ctx_flax.layers.normalization import BatchNorm, LayerNorm, normalise
from ctx_flax.layers.pooling import zero_invalid
from ctx_flax.ops.temporal_shift import temporal_shift


class DropPath(nn.Module):
  """Stochastic depth: drops the branch of an image with probability `rate`, divides kept ones by 1 - rate.

  Draws from the RNG stream 'drop_path'. Reference: https://arxiv.org/abs/1603.09382.
  """

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    if not train or self.rate == 0:
      return x
    if not 0 <= self.rate < 1:
      raise ValueError(f'rate={self.rate}: expected 0 <= rate < 1')
    keep = jax.random.bernoulli(self.make_rng('drop_path'), 1 - self.rate, (x.shape[0],))
    return jnp.where(keep.reshape(-1, *(1,) * (x.ndim - 1)), x / (1 - self.rate), jnp.zeros((), x.dtype))


class LayerScale(nn.Module):
  """Multiplies every channel by a learned factor, initially `initial_value`."""

  initial_value: float = 1e-6
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    gamma = self.param('gamma', initializers.constant(self.initial_value), (x.shape[-1],), self.param_dtype)
    return x * gamma.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class ConvNeXtBlock(nn.Module):
  """x + DropPath(gamma * pwconv2(GELU(pwconv1(norm(dwconv(x)))))), dwconv 7x7, plain or contextual.

  (b, h, w, c) -> (b, h, w, c). `layer_scale_init` 0 leaves the layer scale out; `depthwise_path` is that of
  DepthwiseConv, and means nothing in a contextual block; `ablate` is that of ContextualConv.
  """

  contextual: bool = False
  branch_dim: int | None = None
  mask_gain: float = 1.0
  ablate: tuple[str, ...] = ()
  drop_path_rate: float = 0.0
  layer_scale_init: float = 1e-6
  depthwise_path: str = ''
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    context: jax.Array | None = None,
    valid: jax.Array | None = None,
    train: bool = False,
    padded: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array] | None]:
    """Returns the block's output and, when contextual, how it adapted (see ContextualConv), else None.

    `valid` and `padded` are ContextualConv's; x may hold anything elsewhere.
    """
    padded = valid if padded is None else padded
    c = x.shape[-1]
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    y, adaptation = zero_invalid(x, padded), None
    if self.contextual:
      context = _required(context)
      y, adaptation = ContextualConv(
        c,
        7,
        depthwise=True,
        branch_dim=self.branch_dim,
        mask_gain=self.mask_gain,
        ablate=self.ablate,
        **dtypes,
        name='dwconv',
      )(y, context, train=train, valid=valid, padded=padded)
    else:
      y = DepthwiseConv(7, depthwise_path=self.depthwise_path, **dtypes, name='dwconv')(y)
    y = LayerNorm(**dtypes, name='norm')(y)
    y = nn.Dense(4 * c, kernel_init=normal_002, **dtypes, name='pwconv1')(y)
    y = nn.gelu(y, approximate=False)
    y = nn.Dense(c, kernel_init=normal_002, **dtypes, name='pwconv2')(y)
    if self.layer_scale_init:
      y = LayerScale(self.layer_scale_init, self.param_dtype, name='layer_scale')(y)
    return x + DropPath(self.drop_path_rate)(y, train=train), adaptation


class Bottleneck(nn.Module):
  """ResNet bottleneck 1x1, 3x3 (plain or contextual, with the stride), 1x1 to 4 * width, each with a norm.

  (b, h, w, c) -> (b, ceil(h / strides), ceil(w / strides), 4 * width). The shortcut is projected where
  `project` is set (the first block of a stage).

  Attributes:
    ablate: that of ContextualConv.
    branch_scale_init: initial scale of the last norm; with 0 a block starts as the identity.
    frames: t; above 1, x holds the frames of clips, (b * t, h, w, c) clip by clip, and the residual branch
      reads them shifted in time.
  """

  width: int
  strides: int = 1
  project: bool = False
  contextual: bool = False
  branch_dim: int | None = None
  mask_gain: float = 1.0
  ablate: tuple[str, ...] = ()
  norm: Callable[..., Any] = BatchNorm
  branch_scale_init: float = 0.0
  frames: int = 1
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    context: jax.Array | None = None,
    valid: jax.Array | None = None,
    train: bool = False,
    padded: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array] | None]:
    """Returns the block's output and, when contextual, how it adapted (see ContextualConv), else None.

    `valid` and `padded` are ContextualConv's; x may hold anything elsewhere.
    """
    padded = valid if padded is None else padded
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}

    def pointwise(features: int, strides: int, name: str) -> PointwiseConv:
      return PointwiseConv(features, strides, **dtypes, name=name)

    def norm(x: jax.Array, name: str, **keywords: Any) -> jax.Array:
      return normalise(self.norm(**dtypes, **keywords, name=name), x, train=train)

    y = x
    if self.frames > 1:
      y = temporal_shift(x.reshape(-1, self.frames, *x.shape[1:])).reshape(x.shape)
    y = nn.relu(norm(pointwise(self.width, 1, 'conv1')(y), 'bn1'))
    y, adaptation = zero_invalid(y, padded), None
    if self.contextual:
      context = _required(context)
      y, adaptation = ContextualConv(
        self.width,
        3,
        self.strides,
        use_bias=False,
        branch_dim=self.branch_dim,
        norm=self.norm,
        mask_gain=self.mask_gain,
        ablate=self.ablate,
        kernel_init=he_fan_out,
        **dtypes,
        name='conv2',
      )(y, context, train=train, valid=valid, padded=padded)
    else:
      y = nn.Conv(
        self.width,
        (3, 3),
        self.strides,
        [(1, 1), (1, 1)],  # not 'SAME', which pads one side only at stride 2
        use_bias=False,
        kernel_init=he_fan_out,
        **dtypes,
        name='conv2',
      )(y)
    y = nn.relu(norm(y, 'bn2'))
    scale_init = initializers.constant(self.branch_scale_init)
    y = norm(pointwise(4 * self.width, 1, 'conv3')(y), 'bn3', scale_init=scale_init)
    if self.project:
      x = norm(pointwise(4 * self.width, self.strides, 'downsample_conv')(x), 'downsample_bn')
    return nn.relu(x + y), adaptation


def _required(context: jax.Array | None) -> jax.Array:
  if context is None:
    raise ValueError('context is None: a contextual block needs one, (b, e)')
  return context


def rematerialised(block: type[nn.Module]) -> type[nn.Module]:
  """A block that computes its activations again in the backward pass; pass `train` by position."""
  # jax must see that `train` is no array, and knows arguments of such functions by their numbers alone.
  train = list(inspect.signature(block.__call__).parameters).index('train')
  return nn.remat(block, static_argnums=(train,))
