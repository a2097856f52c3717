"""Class counts that shrink from all classes to those of the network over the first part of a run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pixel_network import SHAPE, PixelNetwork
from steps import (
  counting,
  create_state,
  keep_gradients,
  make_train_step,
  random_batch,
  settings,
  summarise,
)

from ctx_flax.models import create_model
from ctx_flax.tasks.classification.class_counts import class_counts_at
from ctx_flax.training import parallel


def test_class_counts_shrink_linearly():
  at = functools.partial(
    class_counts_at, total_steps=100, fraction=0.6, num_classes=1000, class_counts=(500, 200, 50)
  )
  np.testing.assert_array_equal(at(0), [1000, 1000, 1000])
  np.testing.assert_array_equal(at(30), [750, 600, 525])
  np.testing.assert_array_equal(at(59), [508, 213, 66])
  for late in (60, 61, 100, 10**6):
    np.testing.assert_array_equal(at(late), [500, 200, 50])
  every = np.stack([at(jnp.asarray(i)) for i in range(70)])
  assert (np.diff(every, axis=0) <= 0).all() and (np.diff(every, axis=1) <= 0).all()


def test_class_counts_warm_up_without_compiling_anew():
  """Of four steps the first two warm up: 10, then halfway, then the network's own."""
  config = settings(ema_decay=0.0, warmup=0.5)
  tx = keep_gradients()
  batches = [random_batch(0, shape=SHAPE)] * 4
  traced, traces = counting(make_train_step(PixelNetwork(), tx, config, total_steps=4))
  one = jax.devices()[:1]
  pmapped = parallel.pmap_train_step(traced, one)
  state = parallel.replicate(create_state(PixelNetwork(), tx, SHAPE, ema=False), one)
  seen, recalls = [], []
  for batch in batches:
    state, measured = pmapped(state, parallel.shard_batch(batch, one))
    values = summarise(parallel.fetch(measured), 0.15)
    seen.append([values[f'class_count{s}'] for s in (2, 3, 4)])
    recalls.append(values['recall4'])
  assert seen == [[10, 10, 10], [9, 8, 7], [8, 6, 4], [8, 6, 4]]
  assert recalls[0] == 1 > recalls[2] == recalls[3]
  assert len(traces) == 1


def test_what_class_counts_warm_up_needs():
  with pytest.raises(ValueError, match=r'warmup=0\.5 needs the number of steps'):
    make_train_step(PixelNetwork(), optax.identity(), settings(warmup=0.5))
  with pytest.raises(ValueError, match=r'warmup=0\.5 needs a contextual network'):
    make_train_step(create_model('convnext_mini'), optax.identity(), settings(warmup=0.5), total_steps=4)
