"""Batches in shared memory: the same on the other side, in memory of their own, and nothing stays behind."""

import functools
import pickle
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from ctx_flax.data import shared_memory


@pytest.fixture
def batch():
  rng = np.random.default_rng(0)
  return {
    'image': rng.normal(size=(3, 4, 4, 3)).astype(np.float32),
    'flag': np.array([True, False, True]),
    'label': np.arange(3, dtype=np.int32),
    'empty': np.zeros((0, 2), np.float64),
    'lam': np.float32(0.25) * np.ones(()),
  }


def exists(prefix, index):
  try:
    SharedMemory(f'{prefix}-{index}').close()
  except FileNotFoundError:
    return False
  return True


def test_a_batch_arrives_as_it_was_and_its_memory_is_given_back(batch):
  prefix = shared_memory.new_prefix()
  put = pickle.loads(pickle.dumps(functools.partial(shared_memory.put, prefix=prefix)))
  handle = pickle.loads(pickle.dumps(put(7, batch)))
  assert exists(prefix, 7)
  taken = handle.take()
  assert not exists(prefix, 7)
  assert list(taken) == list(batch)
  for name, array in batch.items():
    np.testing.assert_array_equal(taken[name], array, strict=True)
    assert taken[name].flags.owndata


def test_batches_that_nobody_takes_are_given_back(batch):
  """Some were never made; those of another iterator stay."""
  mine, others = shared_memory.new_prefix(), shared_memory.new_prefix()
  for index in (2, 3, 6):
    shared_memory.put(index, batch, mine)
  kept = shared_memory.put(3, batch, others)
  shared_memory.give_back(mine, range(2, 10))
  assert not any(exists(mine, index) for index in range(10))
  assert exists(others, 3)
  kept.take()


def test_names_are_short_enough_for_macos():
  assert len(f'/{shared_memory.new_prefix()}-{10**9}') <= 30
