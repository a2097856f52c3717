"""Gradients in parts and skipped steps: against the undivided batch and by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pixel_network import SHAPE, PixelNetwork
from steps import (
  CLASSES,
  assert_trees_close,
  combine,
  create_state,
  deciding,
  keep_gradients,
  make_train_step,
  program,
  random_batch,
  run,
  settings,
)

from ctx_flax.models import create_model
from ctx_flax.tasks.classification import losses
from ctx_flax.tasks.classification.task import TASK
from ctx_flax.training import optimizer, step
from ctx_flax.training.parallel import AXIS


def mixed_batch(size=16, shape=SHAPE):
  """Mixed labels, and rows that only fill."""
  rng = np.random.default_rng(1)
  batch = random_batch(0, size, shape)
  batch |= {'other_label': rng.integers(0, CLASSES, size), 'lam': rng.random(size).astype(np.float32)}
  batch['weight'][-3:] = 0
  return batch


def gradients(model, batch, devices=1, **changes):
  config = settings(ema_decay=0.0, **changes)
  _, states, measured, _ = run(model, keep_gradients(), config, [batch], jax.devices()[:devices])
  return states[0].opt_state, measured[0]


def assert_gradients_close(actual, expected):
  """To 1e-5 of the largest element of each parameter (here up to 260), or of 1."""
  scales = jax.tree.map(lambda x: max(1.0, np.abs(x).max()), expected)
  actual, expected = (jax.tree.map(lambda x, scale: x / scale, tree, scales) for tree in (actual, expected))
  assert_trees_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  'selection, normalise, devices, parts',
  [
    ('reduction', 'counted', 2, 2),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in (
        ('reduction', 'counted', 1, 4),
        ('reduction', 'counted', 4, 4),
        ('reduction', 'batch', 2, 2),
        ('rerank', 'counted', 1, 4),
        ('rerank', 'batch', 2, 2),
      )
    ),
  ],
)
def test_parts_add_up_to_the_whole(selection, normalise, devices, parts):
  expected, measured = gradients(PixelNetwork(selection), mixed_batch(), normalise=normalise)
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 0.1
  counts = [measured[f'loss{s}'][1] for s in (1, 2, 3, 4)]
  if selection == 'reduction' and normalise == 'counted':
    assert counts[0] == 13 and counts[3] < 13  # some labels were dropped, or the test shows nothing
  else:
    assert counts == [13] * 4
  divided, measured_divided = gradients(
    PixelNetwork(selection), mixed_batch(), devices, accumulation=parts, normalise=normalise
  )
  assert_gradients_close(divided, expected)
  assert_trees_close(measured_divided, measured, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('selection', ['reduction', 'rerank'])
def test_parts_of_a_network_add_up_to_the_whole(selection):
  model = create_model(
    'ctx_convnext_mini',
    num_classes=CLASSES,
    class_counts=(8, 6, 4),
    class_selection=selection,
    depths=(1, 1, 1, 1),
    dims=(16, 32, 32, 32),
    stem_stride=2,
    layer_scale_init=1.0,
  )
  batch = mixed_batch(shape=(16, 16, 3))
  expected, measured = gradients(model, batch)
  divided, measured_divided = gradients(model, batch, 2, accumulation=2)
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 0.1
  assert_gradients_close(divided, expected)
  assert_trees_close(measured_divided, measured, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_counts_and_gradients_see_the_same_stochastic_depth():
  """Against the loss of all parts written down at once, each part with its own key."""
  model, batch, config = (
    PixelNetwork(drop_path_rate=0.5),
    mixed_batch(),
    settings(ema_decay=0.0, accumulation=2),
  )
  first, states, _, _ = run(model, keep_gradients(), config, [batch], jax.devices()[:1])
  key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 0), 0)

  def loss(params):
    sums, counts = dict.fromkeys((1, 2, 3, 4), 0.0), dict.fromkeys((1, 2, 3, 4), 0.0)
    for i in (0, 1):
      part = {name: value[8 * i : 8 * i + 8] for name, value in batch.items()}
      rngs = {'drop_path': jax.random.fold_in(key, i)}
      _, out = model.apply({'params': params}, part['image'], train=True, rngs=rngs)
      of_part = losses.stage_losses(
        deciding(out, 'reduction'),
        jnp.asarray(part['label']),
        label_smoothing=0.1,
        other_labels=jnp.asarray(part['other_label']),
        lam=jnp.asarray(part['lam']),
        weights=jnp.asarray(part['weight']),
      )
      for s, (total, count) in of_part.items():
        sums[s], counts[s] = sums[s] + total, counts[s] + count
    return combine(sums, counts, 0.15)

  assert_trees_close(states[0].opt_state, jax.jit(jax.grad(loss))(first.params), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_parts_take_less_memory():
  """By the compiler's count: four parts of a batch at a time, against the whole."""
  model = create_model('convnext_mini', num_classes=CLASSES, depths=(1, 1, 1, 1), dims=(16, 16, 16, 16))
  batch = random_batch(0, 64, (32, 32, 3))
  state = jax.eval_shape(lambda: create_state(model, optax.identity(), (32, 32, 3), ema=False))

  def temporary(parts):
    train_step = make_train_step(model, optax.identity(), settings(ema_decay=0.0, accumulation=parts))
    train_step = jax.vmap(train_step, in_axes=(None, 0), out_axes=(None, None), axis_name=AXIS)
    lowered = jax.jit(train_step).lower(state, {name: value[None] for name, value in batch.items()})
    return lowered.compile().memory_analysis().temp_size_in_bytes

  assert temporary(4) < 0.4 * temporary(1)


def test_rows_that_cannot_be_divided_are_named():
  with pytest.raises(ValueError, match=r'16 rows of a device cannot be divided by train\.accumulation=3'):
    gradients(PixelNetwork(), mixed_batch(), accumulation=3)


@pytest.mark.slow
def test_a_step_that_is_not_finite_is_skipped_and_counted():
  """As if its batch had not been there, but for the number of the step."""
  config = settings(on_nan='skip')
  tx = optimizer.make_optimizer(config, lambda step: 1e-2)
  bad = random_batch(1, shape=SHAPE)
  bad['image'][5] = np.nan
  good = [random_batch(seed, shape=SHAPE) for seed in (0, 2)]
  two = jax.devices()[:2]
  compiled = program(PixelNetwork(), tx, config, two)
  _, states, measured, traces = run(PixelNetwork(), tx, config, [good[0], bad, good[1]], two, compiled)
  first, second, third = states
  assert traces == 1
  # The schedule goes on; nothing else does.
  assert (first.opt_state[2].count, second.opt_state[2].count, third.opt_state[2].count) == (1, 2, 3)
  kept = (*second.opt_state[:2], first.opt_state[2])
  assert_trees_close(second.replace(step=first.step, opt_state=kept), first, rtol=0, atol=0)
  assert (first.step, second.step, third.step) == (1, 2, 3)
  assert [m['skipped'] for m in measured] == [(0, 1), (1, 1), (0, 1)]
  assert all(pair == (0, 0) for name, pair in measured[1].items() if name != 'skipped')
  _, (_, alone), _, _ = run(PixelNetwork(), tx, config, good, two, compiled)
  assert_trees_close(third.params, alone.params, rtol=0, atol=0)
  assert_trees_close(third.ema, alone.ema, rtol=0, atol=0)


def test_a_gradient_that_is_not_finite_is_skipped_too():
  """The loss is finite, its gradient is not: sqrt at 0."""

  class Root(nn.Module):
    dims = (1, 1, 1, 1)
    contextual = False

    @nn.compact
    def __call__(self, images, *, train=False):
      scores = nn.Dense(CLASSES)(images.reshape(images.shape[0], -1))
      scores = scores + jnp.sqrt(jnp.abs(self.param('zero', nn.initializers.zeros, (1, 1))))
      everything = jnp.ones(scores.shape, bool)
      return scores, {'scores4': scores, 'considered4': everything, 'alive4': everything}

  config = settings(on_nan='skip', ema_decay=0.0)
  first, states, measured, _ = run(
    Root(), optax.sgd(lambda step: 0.1), config, [random_batch(0, shape=SHAPE)], jax.devices()[:1]
  )
  assert measured[0]['skipped'] == (1, 1)
  assert_trees_close(states[0].params, first.params, rtol=0, atol=0)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'accumulation': 0}, r'train\.accumulation must be 1 \(off\) or more, but is 0'),
    ({'warmup': 1.5}, r'train\.class_counts_warmup must be a fraction .* 1\.5'),
    ({'on_nan': 'ignore'}, r"train\.on_nan must be one of \('stop', 'skip'\), but is 'ignore'"),
    ({'normalise': 'mean'}, r"loss\.normalise must be one of \('counted', 'batch'\), but is 'mean'"),
  ],
)
def test_bad_settings_are_named(changes, message):
  with pytest.raises(ValueError, match=message):
    step.check_settings(settings(**changes))
    TASK.check_settings(settings(**changes))
