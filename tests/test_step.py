"""The training and evaluation steps: eight devices as one, one trace, averages, random keys, padding."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pixel_network import SHAPE as PIXELS
from pixel_network import PixelNetwork
from steps import (
  CLASSES,
  SHAPE,
  adamw,
  assert_trees_close,
  create_state,
  deciding,
  keep_gradients,
  make_eval_step,
  make_train_step,
  random_batch,
  run,
  settings,
  summarise,
)

from ctx_flax.models import create_model
from ctx_flax.tasks.classification import losses
from ctx_flax.training import parallel
from ctx_flax.training.parallel import AXIS


class Recorded(nn.Module):
  """A linear classifier whose batch statistics show every device's draw from 'drop_path'."""

  dims = (1, 1, 1, 1)
  contextual = False

  @nn.compact
  def __call__(self, images, *, train=False):
    draws = self.variable('batch_stats', 'draws', jnp.zeros, (jax.device_count(),), jnp.float32)
    if train:
      draws.value = jax.lax.all_gather(jax.random.uniform(self.make_rng('drop_path')), 'batch')
    scores = nn.Dense(CLASSES)(images.reshape(images.shape[0], -1))
    everything = jnp.ones(scores.shape, bool)
    return scores, {'scores4': scores, 'logits4': scores, 'considered4': everything, 'alive4': everything}


@pytest.mark.slow
def test_eight_devices_equal_one_with_layer_norm():
  """Also where the devices count different numbers of images: sums are divided once, by the global count."""
  # Adam divides by the gradient's size and so magnifies rounding where that is near its eps of 1e-8: a layer
  # scale of 1 instead of 1e-6 and a small rate keep this below the tolerance.
  model = create_model(
    'ctx_convnext_mini',
    num_classes=CLASSES,
    class_counts=(8, 6, 4),
    depths=(1, 1, 1, 1),
    layer_scale_init=1.0,
  )
  config = settings(rate=1e-4)
  batches = [random_batch(seed) for seed in range(3)]
  variables = create_state(model, optax.identity(), SHAPE, ema=False).variables
  apply = jax.jit(lambda images: model.apply(variables, images, train=False)[1]['considered4'])
  for batch in batches:
    # The first half keeps its label to the end, the second half loses it: devices 0-3 against 4-7.
    considered = np.asarray(apply(batch['image']))
    batch['label'] = np.where(np.arange(16) < 8, considered.argmax(-1), considered.argmin(-1)).astype(
      np.int32
    )
  first, one, measured_one, _ = run(model, adamw(config), config, batches, jax.devices()[:1])
  _, eight, measured_eight, traces = run(model, adamw(config), config, batches, jax.devices())
  assert len(jax.devices()) == 8
  assert traces == 1
  assert measured_one[0]['loss4'][1] == 8
  for a, b in zip(measured_eight, measured_one, strict=True):
    assert_trees_close(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(summarise(a, 0.15)['loss'], summarise(b, 0.15)['loss'], rtol=1e-5)
  for a, b in zip(eight, one, strict=True):
    assert_trees_close(a.params, b.params, rtol=0, atol=1e-5)
    assert_trees_close(a.ema, b.ema, rtol=0, atol=1e-5)
  assert eight[-1].step == 3
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), eight[-1].params, first.params)
  assert np.median(jax.tree.leaves(moved)) > 2e-4


@pytest.mark.slow
def test_eight_devices_equal_one_with_batch_norm():
  model = create_model('ctx_resnet_mini', num_classes=CLASSES, class_counts=(8, 6, 4), depths=(1, 1, 1, 1))
  config = settings()
  first, one, measured_one, _ = run(model, keep_gradients(), config, [random_batch(0)], jax.devices()[:1])
  _, eight, measured_eight, _ = run(model, keep_gradients(), config, [random_batch(0)], jax.devices())
  assert_trees_close(measured_eight[0], measured_one[0], rtol=1e-5, atol=1e-5)
  assert_trees_close(eight[0].batch_stats, one[0].batch_stats, rtol=1e-5, atol=1e-6)
  assert_trees_close(eight[0].opt_state, one[0].opt_state, rtol=1e-3, atol=1e-5)
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(one[0].opt_state))
  assert largest > 1e-2
  changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), one[0].batch_stats, first.batch_stats)
  assert all(jax.tree.leaves(changed))


def test_evaluation_leaves_filling_rows_out():
  model = PixelNetwork()
  state = create_state(model, optax.identity(), PIXELS, ema=False)
  whole = random_batch(5, 13, PIXELS)
  eval_step = make_eval_step(model)
  single = parallel.pmap_eval_step(eval_step, jax.devices()[:1])
  one = jax.devices()[:1]
  expected = parallel.fetch(
    single(parallel.replicate(state.variables, one), parallel.shard_batch(whole, one))
  )
  eight = parallel.pmap_eval_step(eval_step)
  variables = parallel.replicate(state.variables)
  got = []
  for seed in (6, 7):
    padded = {k: np.concatenate([v, random_batch(seed, 3, PIXELS)[k]]) for k, v in whole.items()}
    padded['weight'][13:] = 0
    got.append(parallel.fetch(eight(variables, parallel.shard_batch(padded))))
  assert got[0] == got[1], 'what fills the batch shows in the metrics'
  for name, (total, count) in expected.items():
    assert got[0][name][1] == count, name
    if name.startswith('loss'):
      np.testing.assert_allclose(got[0][name][0], total, rtol=1e-5)
    else:
      assert got[0][name][0] == total, name
  assert got[0]['accuracy'][1] == 13


@pytest.mark.slow
def test_plain_models_train_through_the_same_step():
  model = create_model('convnext_mini', num_classes=CLASSES, depths=(1, 1, 1, 1))
  config = settings()
  _, _, measured, traces = run(model, adamw(config), config, [random_batch(0)] * 8, jax.devices())
  values = [summarise(m, 0.15) for m in measured]
  assert set(values[0]) == {'loss', 'loss4', 'accuracy', 'accuracy4', 'top5'}
  assert values[-1]['loss'] < 0.8 * values[0]['loss']
  assert traces == 1


def test_random_keys_differ_by_step_and_device_and_follow_the_seed():
  def draws(seed):
    batches = [random_batch(0, shape=(2, 2, 1))] * 3
    config = settings(seed=seed)
    _, states, _, traces = run(Recorded(), adamw(config), config, batches, jax.devices())
    assert traces == 1
    return np.stack([state.batch_stats['draws'] for state in states])

  found = draws(3)
  assert len(np.unique(found)) == 24
  np.testing.assert_array_equal(draws(3), found)
  assert not np.isin(found, draws(4)).any()


def test_averages_by_hand():
  """Once per step, over parameters and batch statistics, from the initial ones on."""
  config = settings(ema_decay=0.75)
  batches = [random_batch(seed, shape=(2, 2, 1)) for seed in range(3)]
  first, states, _, _ = run(Recorded(), adamw(config), config, batches, jax.devices())
  expected = first.variables
  for state in states:
    expected = jax.tree.map(lambda average, new: 0.75 * average + 0.25 * new, expected, state.variables)
    assert_trees_close(state.ema, expected, rtol=1e-6)
  assert np.all(states[-1].ema['batch_stats']['draws'] != states[-1].batch_stats['draws'])


def test_no_averages_where_off():
  config = settings(ema_decay=0.0)
  _, states, _, _ = run(Recorded(), adamw(config), config, [random_batch(0, shape=(2, 2, 1))], jax.devices())
  assert states[-1].ema == {}
  assert states[-1].step == 1


def test_averages_are_float32():
  class Half(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
      return nn.Dense(CLASSES, param_dtype=jnp.bfloat16)(images.reshape(images.shape[0], -1)), {}

  state = create_state(Half(), optax.identity(), (2, 2, 1), ema=True)
  assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype('bfloat16')}
  assert {leaf.dtype for leaf in jax.tree.leaves(state.ema)} == {jnp.dtype('float32')}


def test_mixed_labels_reach_loss_and_accuracy():
  """Against the losses of the whole batch, and the accuracy of the heavier label."""
  config = settings(ema_decay=0.0)
  batch = random_batch(0, shape=(2, 2, 1))
  rng = np.random.default_rng(1)
  batch |= {'other_label': rng.integers(0, CLASSES, 16), 'lam': rng.random(16).astype(np.float32)}
  first, _, measured, _ = run(Recorded(), adamw(config), config, [batch], jax.devices())

  @jax.jit
  def by_hand(variables, batch):
    scores, out = Recorded().apply(variables, batch['image'])
    other = {'other_labels': batch['other_label'], 'lam': batch['lam']}
    of_stages = losses.stage_losses(deciding(out, 'rerank'), batch['label'], label_smoothing=0.1, **other)
    return scores, of_stages[4][0]

  scores, total = by_hand(first.variables, batch)
  np.testing.assert_allclose(measured[0]['loss4'], (total, 16), rtol=1e-5)
  heavier = np.where(batch['lam'] < 0.5, batch['other_label'], batch['label'])
  assert measured[0]['accuracy'] == ((np.asarray(scores).argmax(-1) == heavier).sum(), 16)


def test_bad_input_is_named():
  config = settings()
  tx = adamw(config)
  train_step = make_train_step(Recorded(), tx, config)
  state = create_state(Recorded(), tx, (2, 2, 1), ema=False)
  batch = random_batch(0, shape=(2, 2, 1))
  with pytest.raises(ValueError, match=r'ema_decay=0\.9 does not fit a state created with ema=False'):
    train_step(state, batch)
  del batch['weight']
  config = settings(ema_decay=0.0)
  train_step = jax.vmap(make_train_step(Recorded(), tx, config), in_axes=(None, 0), axis_name=AXIS)
  with pytest.raises(ValueError, match=r"needs image, label and weight, but \['weight'\] is missing"):
    jax.eval_shape(train_step, state, parallel.shard_batch(batch))
  with pytest.raises(ValueError, match=r"\['weight'\] is missing"):
    make_eval_step(Recorded())(state.variables, batch)
