"""Parameters that a network declares fixed: they stay those of the weights that a run starts from."""

import types

import jax
import jax.numpy as jnp
from tiny import tiny_config

from ctx_flax.training import optimizer, starting_point


def settings(**init):
  config = tiny_config()
  config.init.update(init)
  return config


def test_what_a_network_declares_fixed_stays():
  """Neither rate nor decay nor moments, whatever init.freeze says, if there are weights to keep."""
  config = settings(freeze=('stem_.*',), weights='RUN')
  config.optimizer.weight_decay = 0.1
  network = types.SimpleNamespace(fixed_parameters=('backbone/(tau|heads)/.*',))
  factor = starting_point.rate_factor(config, network=network)
  names = 'stem_conv/kernel', 'backbone/tau/kernel', 'backbone/heads/out/kernel', 'backbone/taught/kernel'
  assert [factor(name) for name in names] == [0, 0, 0, 1]
  anew = starting_point.rate_factor(settings(weights='RUN'), 'backbone/heads/.*', network)
  assert [anew(name) for name in names] == [1, 0, 1, 1]
  config.init.weights = ''
  assert [starting_point.rate_factor(config, network=network)(name) for name in names] == [0, 1, 1, 1]
  config.init.weights = 'RUN'
  tx = optimizer.make_optimizer(config, 0.5, factor)
  kernel = {'kernel': jnp.ones((2, 2))}
  params = {'backbone': {'tau': kernel, 'taught': kernel}}
  updates, state = tx.update(params, tx.init(params), params)
  assert not updates['backbone']['tau']['kernel'].any() and updates['backbone']['taught']['kernel'].all()
  moments = [x for path, x in jax.tree_util.tree_leaves_with_path(state) if "'tau'" in str(path)]
  assert len(moments) == 2 and not any(moment.any() for moment in moments)
