"""Sums over one axis: every path gives the sum, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_flax.ops.sums import PATHS, sum_axis


@pytest.mark.parametrize('path', [None, *PATHS])
@pytest.mark.parametrize('axis', [-1, -2])
def test_every_path_is_the_sum(path, axis):
  x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float32)
  weights = jnp.arange(1.0, 2 * 3 * (5 if axis == -1 else 4) + 1).reshape(2, 3, -1)
  value, grad = jax.value_and_grad(lambda x: jnp.sum(weights * sum_axis(x, axis, path=path)))(jnp.asarray(x))
  np.testing.assert_allclose(value, np.sum(weights * x.sum(axis)), rtol=1e-5)
  np.testing.assert_allclose(grad, np.broadcast_to(np.expand_dims(weights, axis), x.shape), rtol=1e-6)
  assert sum_axis(jnp.asarray(x), axis, path=path).dtype == jnp.float32
