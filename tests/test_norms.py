"""Norms: the statistics that they use and keep, and Flax's own in their place."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_arrays import KEY, normal

from ctx_flax.layers import (
  BatchNorm,
  ContextualConv,
  LayerNorm,
)
from ctx_flax.layers.normalization import normalise


@pytest.mark.parametrize('norm, ours', [(nn.LayerNorm, LayerNorm), (nn.BatchNorm, BatchNorm)])
def test_the_norms_of_flax_take_the_places_of_ours(norm, ours):
  """In contextual convolutions by the same names, and called for training or not as theirs want it."""
  inputs = normal(0, 2, 4, 4, 8), normal(1, 2, 4)
  layers = [ContextualConv(8, kernel_size=3, norm=kind) for kind in (norm, ours)]
  theirs, expected = (jax.eval_shape(functools.partial(layer.init, KEY), *inputs) for layer in layers)
  assert jax.tree.map(np.shape, theirs) == jax.tree.map(np.shape, expected)

  class Holder(nn.Module):
    kind: type

    @nn.compact
    def __call__(self, x, train):
      return normalise(self.kind(epsilon=1e-5, name='norm'), x, train=train)

  x = 3 + normal(2, 5, 8)
  variables = Holder(norm).init(KEY, x, False)

  @jax.jit
  def run(variables, x):
    return [
      Holder(kind).apply(variables, x, train, mutable=['batch_stats'])[0]
      for train in (True, False)
      for kind in (norm, ours)
    ]

  with jax.numpy_rank_promotion('allow'):  # Flax's own need it
    y, z, y_fixed, z_fixed = run(variables, x)
  np.testing.assert_allclose(y, z, atol=1e-4)
  np.testing.assert_allclose(y_fixed, z_fixed, atol=1e-4)


def test_a_norm_of_another_kind_is_refused_by_name():
  class Scale(nn.Module):
    epsilon: float = 1e-6
    dtype: type | None = None
    param_dtype: type = jnp.float32

    def __call__(self, x):
      return x

  with pytest.raises(TypeError, match='norm=Scale must be called as norm'):
    ContextualConv(8, kernel_size=3, norm=Scale).init(KEY, normal(0, 1, 4, 4, 8), normal(1, 1, 4))


def test_layer_norm_against_numpy():
  x = normal(1, 4, 5, 3) * 0.01 + 100  # mean(x^2) - mean(x)^2 has no correct digit here
  params = {'scale': np.float32([1, 2, 3]), 'bias': np.float32([0.5, 0, -1])}
  apply = jax.jit(lambda x: LayerNorm(1e-5).apply({'params': params}, x))
  wide = x.astype(np.float64)
  expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
  expected = expected * params['scale'] + params['bias']
  np.testing.assert_allclose(apply(x), expected, atol=2e-2)
  np.testing.assert_allclose(apply(x - 100), expected, atol=2e-2)


def test_batch_norm_normalises_with_the_biased_and_stores_the_unbiased_variance():
  x = normal(1, 3, 2, 2, 4) * 2 + 1
  layer = BatchNorm()
  variables = layer.init(KEY, x)
  train = jax.jit(functools.partial(layer.apply, train=True, mutable=['batch_stats']))
  y, new = jax.device_get(train(variables, x))
  rows = np.asarray(x, np.float64).reshape(-1, 4)
  np.testing.assert_allclose(y.reshape(-1, 4), (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5), atol=1e-5)
  stats = new['batch_stats']
  np.testing.assert_allclose(stats['mean'], 0.1 * rows.mean(0), rtol=1e-5)
  np.testing.assert_allclose(stats['var'], 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-5)
  running = jax.jit(layer.apply)({**variables, **new}, x)
  np.testing.assert_allclose(
    running,
    (x - stats['mean'].reshape(1, 1, 1, 4)) / np.sqrt(stats['var'] + 1e-5).reshape(1, 1, 1, 4),
    atol=1e-5,
  )


def test_batch_norm_over_devices_is_that_of_the_whole_batch():
  x = normal(1, 16, 5) * 3
  whole = BatchNorm()
  variables = whole.init(KEY, x)
  train = jax.jit(functools.partial(whole.apply, train=True, mutable=['batch_stats']))
  expected, new = jax.device_get(train(variables, x))
  synced = BatchNorm(axis_name='batch')
  run = jax.pmap(
    lambda x: synced.apply(variables, x, train=True, mutable=['batch_stats']),
    'batch',
    devices=jax.devices()[:8],
  )
  y, new_devices = jax.device_get(run(x.reshape(8, 2, 5)))
  np.testing.assert_allclose(y.reshape(16, 5), expected, atol=1e-5)
  for name in ('mean', 'var'):
    for device in range(8):
      np.testing.assert_allclose(
        new_devices['batch_stats'][name][device], new['batch_stats'][name], rtol=1e-5, err_msg=name
      )
