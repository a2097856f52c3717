"""Frozen norms: BatchNorm keeps the statistics that it started with."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from initial_values import initial_values
from steps import make_train_step

from configs import digits
from ctx_flax.models import create_model
from ctx_flax.training.parallel import AXIS
from ctx_flax.training.state import create_state


@pytest.mark.parametrize('frozen', [True, pytest.param(False, marks=pytest.mark.slow)])
def test_frozen_norms_keep_their_statistics(frozen):
  config = digits.get_config()
  config.train.ema_decay = 0.0
  model = create_model('resnet_mini', num_classes=10, depths=(1, 1, 1, 1), dims=(4, 4, 4, 4))
  tx = optax.sgd(0.1)
  state = create_state(jax.tree.map(jnp.asarray, initial_values(model)), tx, ema=False)
  batch = {
    'image': np.random.default_rng(1).standard_normal((1, 4, 32, 32, 3), np.float32),
    'label': np.arange(4, dtype=np.int32)[None],
    'weight': np.ones((1, 4), np.float32),
  }
  config.init.freeze_norm = frozen
  step = make_train_step(model, tx, config)
  new, _ = jax.jit(jax.vmap(step, in_axes=(None, 0), out_axes=(None, None), axis_name=AXIS))(state, batch)
  same = [
    np.array_equal(old, changed)
    for old, changed in zip(jax.tree.leaves(state.batch_stats), jax.tree.leaves(new.batch_stats), strict=True)
  ]
  assert all(same) if frozen else not any(same)
  moved = flax.traverse_util.flatten_dict(
    jax.tree.map(lambda a, b: not np.array_equal(a, b), state.params, new.params)
  )
  assert moved['fc', 'kernel']
