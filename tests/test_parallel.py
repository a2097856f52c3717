"""Placing the state on the devices and splitting batches between them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_flax.training import parallel


def add_sum(state, batch):
  total = jax.lax.psum(batch['label'].sum(), 'batch')
  return state + total, total


def test_replicating_leaves_the_original():
  """A training step consumes what it is given, which must not be the memory of what was replicated."""
  state = jnp.zeros(4)
  placed = parallel.replicate(state)
  result, total = parallel.pmap_train_step(add_sum)(placed, parallel.shard_batch({'label': np.arange(16.0)}))
  assert parallel.fetch(total) == 120
  np.testing.assert_array_equal(parallel.fetch(result), 120)
  assert placed.is_deleted()
  np.testing.assert_array_equal(state, 0)


@pytest.mark.parametrize('count', [1, 2, 8])
def test_steps_run_on_the_given_devices(count):
  devices = jax.devices()[:count]
  placed = parallel.replicate(jnp.zeros(4), devices)
  assert placed.devices() == set(devices)
  batch = parallel.shard_batch({'label': np.arange(16.0)}, devices)
  assert parallel.fetch(parallel.pmap_eval_step(lambda s, b: add_sum(s, b)[1], devices)(placed, batch)) == 120


def test_batches_are_split_in_order():
  split = parallel.shard_batch({'image': np.zeros((16, 4, 4, 3)), 'label': np.arange(16)})
  assert split['image'].shape == (8, 2, 4, 4, 3)
  np.testing.assert_array_equal(split['label'], np.arange(16).reshape(8, 2))


def test_batches_that_cannot_be_split_are_named():
  with pytest.raises(ValueError, match='batch of 12 images cannot be divided by 8 devices'):
    parallel.shard_batch({'label': np.arange(12)})
  with pytest.raises(ValueError, match=r"must have one length, but have .*'label': 15"):
    parallel.shard_batch({'image': np.zeros((16, 4, 4, 3)), 'label': np.arange(15)})
