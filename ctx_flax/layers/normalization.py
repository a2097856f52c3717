"""LayerNorm and BatchNorm with one calling convention, so that a layer can be given either.

A layer builds the norm that it is given by norm(dtype=..., param_dtype=..., name=...), with epsilon=1e-5 if
the networks have that for LayerNorm too (image heads, mergers, kernel branches), and calls it by `normalise`:
norm(x, train=...), of which LayerNorm ignores `train`. Flax's own norms are called as they want it.
"""

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from ctx_flax.ops.sums import sum_axis


class LayerNorm(nn.Module):
  """Normalises over the last axis, in at least float32.

  The variance is the two-pass one: mean(x^2) - mean(x)^2 loses all digits where a branch has two or
  three hidden units of nearly the same value.
  """

  epsilon: float = 1e-6
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    del train
    c = x.shape[-1]
    scale = self.param('scale', initializers.ones, (c,), self.param_dtype)
    bias = self.param('bias', initializers.zeros, (c,), self.param_dtype)
    return _layer_norm(x, scale, bias, self.epsilon, self.dtype or x.dtype)


class BatchNorm(nn.Module):
  """Normalises over all axes but the last; PyTorch's statistics.

  Normalises with the biased variance, stores the unbiased one, n / (n - 1) times it, with
  running = momentum * running + (1 - momentum) * batch. Flax's own stores the biased one: in layers
  that see one vector per image, n is the number of images and the difference is not small.

  Attributes:
    axis_name: pmapped axis to average statistics over, or None. n is then the global count, and
      every device must hold the same number of elements, unless `valid` says which of them count.
  """

  epsilon: float = 1e-5
  momentum: float = 0.9
  axis_name: Hashable | None = None
  dtype: Any = None
  param_dtype: Any = jnp.float32
  scale_init: Callable[..., Any] = initializers.ones

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False, valid: jax.Array | None = None) -> jax.Array:
    """Normalises (..., c); `valid`, bool of the first axes of x, says what counts in training; None: all."""
    c = x.shape[-1]
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (c,), jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, (c,), jnp.float32)
    scale = self.param('scale', self.scale_init, (c,), self.param_dtype)
    bias = self.param('bias', initializers.zeros, (c,), self.param_dtype)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if train:
      mean, variance, n = self._of_all(wide) if valid is None else self._of_valid(wide, valid)
      if not self.is_initializing():
        unbiased = variance * (n / max(n - 1, 1) if valid is None else n / jnp.maximum(n - 1, 1))
        keep = self.momentum if valid is None else jnp.where(n > 0, self.momentum, 1.0)
        running_mean.value = keep * running_mean.value + (1 - keep) * mean
        running_var.value = keep * running_var.value + (1 - keep) * unbiased
    else:
      mean, variance = running_mean.value, running_var.value
    lead = (1,) * (x.ndim - 1)
    normal = (wide - mean.reshape(*lead, c)) * jax.lax.rsqrt(variance + self.epsilon).reshape(*lead, c)
    return _affine(normal, scale, bias, self.dtype or x.dtype)

  def _of_all(self, x: jax.Array) -> tuple[jax.Array, jax.Array, int]:
    """Mean and variance (c,) of the elements of all devices, and how many they are."""
    mean = self._reduce(jax.lax.pmean, jnp.mean(_rows(x), 0))
    variance = self._reduce(jax.lax.pmean, jnp.mean((_rows(x) - mean[None]) ** 2, 0))
    n = x.size // x.shape[-1]
    return mean, variance, n * jax.lax.axis_size(self.axis_name) if self._synchronises else n

  def _of_valid(self, x: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The same of the valid elements, whose numbers may differ between devices."""
    each = _rows(jnp.broadcast_to(valid.reshape(*valid.shape, *(1,) * (x.ndim - valid.ndim)), x.shape))
    n = self._reduce(jax.lax.psum, jnp.sum(each[:, 0], dtype=x.dtype))
    divisor = jnp.maximum(n, 1)
    mean = self._reduce(jax.lax.psum, jnp.sum(jnp.where(each, _rows(x), 0), 0)) / divisor
    centred = jnp.where(each, _rows(x) - mean[None], 0)
    return mean, self._reduce(jax.lax.psum, jnp.sum(centred**2, 0)) / divisor, n

  @property
  def _synchronises(self) -> bool:
    return self.axis_name is not None and not self.is_initializing()

  def _reduce(self, reduce: Callable[..., Any], value: jax.Array) -> jax.Array:
    return reduce(value, self.axis_name) if self._synchronises else value


def normalise(norm: nn.Module, x: jax.Array, *, train: bool) -> jax.Array:
  """Calls a norm: norm(x, train=train), or as Flax's own norms want it.

  Raises:
    TypeError: a norm of another kind that takes no `train`; the message names its class.
  """
  if isinstance(norm, nn.BatchNorm):
    return norm(x, use_running_average=not train if norm.use_running_average is None else None)
  if isinstance(norm, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm | nn.InstanceNorm):
    return norm(x)
  if 'train' not in inspect.signature(norm.__call__).parameters:
    raise TypeError(f'norm={type(norm).__name__} must be called as norm(x, train=...), but takes no `train`')
  return norm(x, train=train)


@functools.partial(jax.jit, static_argnames=('epsilon', 'dtype'))  # traced once for every shape, not layer
def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, dtype: Any) -> jax.Array:
  c = x.shape[-1]
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  centred = wide - sum_axis(wide, -1)[..., None] / c
  variance = sum_axis(centred**2, -1)[..., None] / c
  return _affine(centred * jax.lax.rsqrt(variance + epsilon), scale, bias, dtype)


def _rows(x: jax.Array) -> jax.Array:
  return x.reshape(-1, x.shape[-1])


def _affine(x: jax.Array, scale: jax.Array, bias: jax.Array, dtype: Any) -> jax.Array:
  shape = (1,) * (x.ndim - 1) + (-1,)
  return (x * scale.astype(x.dtype).reshape(shape) + bias.astype(x.dtype).reshape(shape)).astype(dtype)
