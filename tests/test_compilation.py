"""Programs that run once: the values of jax.jit, traced once, compiled with fewer optimisations."""

import jax
import jax.numpy as jnp
import numpy as np

from ctx_flax.training import compilation


def test_values_and_traces(monkeypatch):
  monkeypatch.setattr(compilation, 'OPTIONS', {compilation.LEVEL: 1})
  traced = []

  @compilation.jit_to_run_once('side')
  def draw(key, *, side):
    traced.append(side)
    return jax.nn.initializers.he_normal()(key, (side, side))

  key = jax.random.key(3)
  assert jax.eval_shape(lambda key: draw(key, side=12), key).shape == (12, 12)
  within = jax.jit(lambda key: jnp.sum(draw(key, side=12)))(key)  # where options of its own would be an error
  values = draw(key, side=12)
  assert traced == [12] and draw(key, side=5).shape == (5, 5)
  expected = jax.jit(lambda key: jax.nn.initializers.he_normal()(key, (12, 12)))(key)
  np.testing.assert_allclose(values, expected, rtol=1e-6)  # the suite compiles `expected` with even fewer
  np.testing.assert_allclose(within, expected.sum(), rtol=1e-5)


def test_options_are_options_of_the_compiler(monkeypatch):
  """An unknown one is refused, so that these reach XLA."""
  monkeypatch.setattr(compilation, 'OPTIONS', {'xla_no_such_option': 1})
  double = compilation.jit_to_run_once()(lambda x: 2 * x)
  try:
    double(jnp.ones(3))
  except jax.errors.JaxRuntimeError as error:
    assert 'xla_no_such_option' in str(error)
  else:
    raise AssertionError('the option did not reach the compiler')
