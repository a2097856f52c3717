"""The training step with batch statistics, in parts and where steps are skipped, and in bfloat16."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from steps import (
  CLASSES,
  assert_trees_close,
  combine,
  create_state,
  deciding,
  keep_gradients,
  make_train_step,
  random_batch,
  run,
  settings,
)

from ctx_flax.layers import BatchNorm, Contextualizer
from ctx_flax.models import create_model
from ctx_flax.tasks.classification import losses
from ctx_flax.training import optimizer
from ctx_flax.training.parallel import AXIS


class Normed(nn.Module):
  """Four contextualizing layers with BatchNorm on the pixels of a tiny image."""

  class_selection: str = 'reduction'
  contextual: bool = True
  dims: tuple[int, ...] = (4, 4, 4, 4)
  axis_name: Any = None

  @nn.compact
  def __call__(self, images, *, train=False):
    norm = functools.partial(BatchNorm, axis_name=self.axis_name)
    layers = Contextualizer(CLASSES, (8, 6, 4), (8,) * 4, (4,) * 3, embed_dim=8, norm=norm)
    x = images.reshape(images.shape[0], -1)
    considered, out = jnp.ones((images.shape[0], CLASSES), bool), {}
    for stage in (1, 2, 3, 4):
      scores = layers.score(x, stage, train=train)
      out |= {f'scores{stage}': scores, f'considered{stage}': considered}
      if stage < 4:
        considered = layers.select(scores, considered, stage)
        x = x + layers.context(considered, stage + 1)
    return scores, deciding(out, self.class_selection)


@pytest.mark.slow
def test_batch_statistics_are_those_of_a_part_on_all_devices():
  """Two parts on two devices: statistics move twice, the counting pass moves none, a skipped step neither."""
  config = settings(accumulation=2, on_nan='skip')
  batch = random_batch(0, shape=(2, 2, 1))
  broken = random_batch(1, shape=(2, 2, 1))
  broken['image'][9] = np.inf
  # A skipped step advances a schedule, so there must be one.
  tx = optax.chain(keep_gradients(), optax.scale_by_schedule(lambda step: 1.0))
  first, (state, skipped), measured, _ = run(Normed(), tx, config, [batch, broken], jax.devices()[:2])

  @jax.jit
  @functools.partial(jax.grad, has_aux=True)
  def expected(params):
    stats, sums, counts = (
      first.batch_stats,
      dict.fromkeys((1, 2, 3, 4), 0.0),
      dict.fromkeys((1, 2, 3, 4), 0.0),
    )
    for part in (np.r_[0:4, 8:12], np.r_[4:8, 12:16]):
      (_, out), updated = Normed().apply(
        {'params': params, 'batch_stats': stats}, batch['image'][part], train=True, mutable=['batch_stats']
      )
      stats = updated['batch_stats']
      labels = jnp.asarray(batch['label'][part])
      of_part = losses.stage_losses(deciding(out, 'reduction'), labels, label_smoothing=0.1)
      for s, (total, count) in of_part.items():
        sums[s], counts[s] = sums[s] + total, counts[s] + count
    return combine(sums, counts, 0.15), (stats, counts)

  gradients, (stats, counts) = expected(first.params)
  assert counts[4] < 16  # labels were dropped, so the parts had to be counted
  assert {s: measured[0][f'loss{s}'][1] for s in counts} == counts
  assert_trees_close(state.batch_stats, stats, rtol=1e-5, atol=1e-6)
  scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients))
  assert_trees_close(state.opt_state[0], gradients, rtol=0, atol=1e-5 * scale)
  moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), state.batch_stats, first.batch_stats)
  assert all(jax.tree.leaves(moved))
  kept = (skipped.opt_state[0], state.opt_state[1])
  assert_trees_close(skipped.replace(step=state.step, opt_state=kept), state, rtol=0, atol=0)
  assert skipped.step == skipped.opt_state[1].count == 2 and measured[1]['skipped'] == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ctx_convnext_mini', 'ctx_resnet_mini'])
def test_a_step_in_bfloat16_keeps_a_float32_state(name):
  """The network computes in bfloat16; losses, gradients, averages and the optimizer do not."""
  model = create_model(name, num_classes=CLASSES, class_counts=(8, 6, 4), depths=(1,) * 4, dtype='bfloat16')
  config = settings(accumulation=2, warmup=0.5)
  keep = keep_gradients()
  tx = optax.chain(keep, optimizer.make_optimizer(config, 1e-3))
  state = jax.eval_shape(lambda: create_state(model, tx, (32, 32, 3), ema=True))
  train_step = make_train_step(model, tx, config, total_steps=4)
  train_step = jax.vmap(train_step, in_axes=(None, 0), out_axes=(None, None), axis_name=AXIS)
  batch = {key: value[None] for key, value in random_batch(0, 4).items()}
  after, measured = jax.eval_shape(train_step, state, batch)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
    lambda x: (x.shape, x.dtype), state
  )
  floats = [leaf.dtype for leaf in jax.tree.leaves((after, measured)) if leaf.dtype != jnp.int32]
  assert set(floats) == {jnp.dtype('float32')}
  network = model.clone(axis_name=None)
  out = jax.eval_shape(lambda v, x: network.apply(v, x)[1], state.variables, batch['image'][0])
  assert out['stage3'].dtype == jnp.bfloat16
