"""Linear and plain convolution layers with the initial values of the two network families."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from ctx_flax.ops.depthwise_conv import depthwise_conv
from ctx_flax.ops.pointwise_conv import pointwise_conv

# ConvNeXt. Its source says truncated, but at 2.0 rather than at two standard deviations: no truncation.
normal_002 = initializers.normal(0.02)


def he_fan_out(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
  """ResNet convolutions: normal with standard deviation sqrt(2 / (kh * kw * c_out))."""
  kh, kw, _, d = shape
  return initializers.normal((2.0 / (kh * kw * d)) ** 0.5)(key, shape, dtype)


def uniform_fan_in(fan_in: int) -> Callable[..., jax.Array]:
  """U(+-1 / sqrt(fan_in)): PyTorch's default for weights and biases alike."""
  bound = fan_in**-0.5

  def init(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


class Linear(nn.Module):
  """x @ kernel + bias over the last axis.

  Attributes:
    features: size of the output.
    distribution: 'normal' (ConvNeXt: weights N(0, 0.02), bias 0) or 'uniform' (PyTorch's default: both
      U(+-1 / sqrt(fan_in))).
  """

  features: int
  distribution: str = 'normal'
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = x.shape[-1]
    if self.distribution == 'uniform':
      kernel_init = bias_init = uniform_fan_in(c)
    else:
      kernel_init, bias_init = normal_002, initializers.zeros
    kernel = self.param('kernel', kernel_init, (c, self.features), self.param_dtype)
    bias = self.param('bias', bias_init, (self.features,), self.param_dtype)
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    return x @ kernel + bias.reshape((1,) * (x.ndim - 1) + (-1,))


class DepthwiseConv(nn.Module):
  """Depthwise k x k convolution (b, h, w, c) -> (b, h, w, c) with padding k // 2 and a bias.

  `depthwise_path` is the `path` of depthwise_conv; '' chooses by platform.
  """

  kernel_size: int = 7
  kernel_init: Callable[..., Any] = normal_002
  depthwise_path: str = ''
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    k, c = self.kernel_size, x.shape[-1]
    kernel = self.param('kernel', self.kernel_init, (k, k, 1, c), self.param_dtype)
    bias = self.param('bias', initializers.zeros, (c,), self.param_dtype)
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    y = depthwise_conv(x, kernel, padding=k // 2, path=self.depthwise_path or None)
    return y + bias.reshape(1, 1, 1, c)


class PointwiseConv(nn.Module):
  """1x1 convolution (b, h, w, c) -> (b, ceil(h / strides), ceil(w / strides), features), without a bias."""

  features: int
  strides: int = 1
  kernel_init: Callable[..., Any] = he_fan_out
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel = self.param('kernel', self.kernel_init, (1, 1, x.shape[-1], self.features), self.param_dtype)
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    return pointwise_conv(x, kernel, strides=self.strides)
