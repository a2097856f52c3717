"""Single steps of training: settings, batches, optimizers and states for them, and how trees are compared."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
from initial_values import initial_values

from ctx_flax.models.network import Network
from ctx_flax.tasks.classification import losses
from ctx_flax.tasks.classification.objective import StageEvaluator, objective
from ctx_flax.training import optimizer, parallel, state, step, terms

CLASSES = 10
SHAPE = (32, 32, 3)
ALPHA = 0.15  # the weight of the losses of all stages but the last


def settings(**changes):
  values = {'seed': 3, 'alpha': 0.15, 'label_smoothing': 0.1, 'ema_decay': 0.9, 'rate': 1e-3}
  values |= {'normalise': 'counted', 'accumulation': 1, 'on_nan': 'stop', 'warmup': 0.0}
  values |= changes
  return types.SimpleNamespace(
    seed=values['seed'],
    loss=types.SimpleNamespace(
      alpha=values['alpha'], label_smoothing=values['label_smoothing'], normalise=values['normalise']
    ),
    init=types.SimpleNamespace(freeze_norm=False),
    train=types.SimpleNamespace(
      ema_decay=values['ema_decay'],
      accumulation=values['accumulation'],
      on_nan=values['on_nan'],
      class_counts_warmup=values['warmup'],
      batch_size=16,
      steps=100,
      epochs=0,
    ),
    optimizer=types.SimpleNamespace(
      learning_rate=values['rate'],
      reference_batch=0,
      groups=(),
      layer_decay=1.0,
      name='adamw',
      no_decay=('standard',),
      schedule='cosine',
      drops=(),
      warmup_steps=0,
      warmup_factor=0.0,
      weight_decay=0.05,
      beta1=0.9,
      beta2=0.999,
      eps=1e-8,
      clip_norm=0.0,
      warmup_epochs=0,
      warmup_start=0.0,
      floor=0.0,
      cooldown_epochs=0,
      per_epoch=False,
    ),
  )


def adamw(config):
  return optimizer.make_optimizer(config, optimizer.learning_rate_schedule(config, 10))


def keep_gradients():
  """An optimizer that moves nothing and leaves the gradients in its state."""
  return optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda gradients, _, params: (jax.tree.map(jnp.zeros_like, params), gradients),
  )


def random_batch(seed, size=16, shape=SHAPE):
  rng = np.random.default_rng(seed)
  return {
    'image': rng.normal(size=(size, *shape)).astype(np.float32),
    'label': rng.integers(0, CLASSES, size).astype(np.int32),
    'weight': np.ones(size, np.float32),
  }


def create_state(model, tx, shape, ema):
  """The state at step 0 of a network for images of `shape`.

  Whole networks start as they do for users: from other values gradients are not as well conditioned.
  """
  if isinstance(model, Network):
    variables = _initial(model, tuple(shape), jax.random.key(0))
  else:
    variables = jax.tree.map(jnp.asarray, initial_values(model, shape))
  return state.create_state(variables, tx, ema)


@functools.partial(jax.jit, static_argnames=('model', 'shape'))
def _initial(model, shape, key):
  return model.init(key, jnp.zeros((1, *shape)), train=False)


def make_train_step(model, tx, config, total_steps=0):
  """The training step of classification."""
  return step.make_train_step(objective(config, model, total_steps), tx, config)


def make_eval_step(model):
  """The step that tests a network, for its sums: (variables, batch) -> {name: (sum, count)}."""
  eval_step = step.make_eval_step(StageEvaluator(settings(), model))

  def sums(variables, batch):
    found, rows = eval_step(variables, batch)
    assert rows == {}
    return found

  return sums


def loss_weights(alpha, stages=(1, 2, 3, 4)):
  """{'loss1': alpha, ..., 'loss4': 1.0}."""
  return {f'loss{s}': 1.0 if s == stages[-1] else alpha for s in stages}


def summarise(of_step, alpha=0.15):
  """{name: float} of the terms of a step."""
  return terms.summarise(of_step, loss_weights(alpha))


def combine(sums, counts, alpha):
  """The loss of {stage: sum} and {stage: count}."""
  named = [{f'loss{s}': value for s, value in of_stages.items()} for of_stages in (sums, counts)]
  return terms.weighted_loss(*named, loss_weights(alpha))


def deciding(out, selection):
  """`out` with the classes between which each stage decides: the considered ones, or with 'rerank' all."""
  stages = [name.removeprefix('considered') for name in out if name.startswith('considered')]
  considered = {s: out[f'considered{s}'] for s in stages}
  if selection == 'rerank':
    considered = {s: jnp.ones_like(value) for s, value in considered.items()}
  return out | {f'alive{s}': value for s, value in considered.items()}


def stage_losses(out, labels, *, selection, **options):
  """{stage: (sum, count)} of the classes between which each stage decides."""
  return losses.stage_losses(deciding(out, selection), labels, **options)


def total_loss(out, labels, alpha=ALPHA, **options):
  """The loss of all stages together."""
  parts = stage_losses(out, labels, **options)
  return combine({s: p[0] for s, p in parts.items()}, {s: p[1] for s, p in parts.items()}, alpha)


def counting(function):
  """The function, and a list that grows by one entry whenever it is traced."""
  traces = []

  def traced(*args):
    traces.append(1)
    return function(*args)

  return traced, traces


def program(model, tx, config, devices):
  """What `run` runs: (the step on these devices, a list that grows whenever it is traced)."""
  train_step, traces = counting(make_train_step(model, tx, config))
  return parallel.pmap_train_step(train_step, devices), traces


def run(model, tx, config, batches, devices, compiled=None):
  """(first state, states, metrics) of one step per batch, as numpy, and the number of traces.

  `compiled` is a `program` that several runs share.
  """
  train_step, traces = compiled or program(model, tx, config, devices)
  shape = batches[0]['image'].shape[1:]
  now = create_state(model, tx, shape, ema=config.train.ema_decay > 0)
  first, states, measured = parallel.fetch(now), [], []
  now = parallel.replicate(now, devices)
  for batch in batches:
    now, of_step = train_step(now, parallel.shard_batch(batch, devices))
    states.append(parallel.fetch(now))
    measured.append(parallel.fetch(of_step))
  return first, states, measured, len(traces)


def assert_trees_close(actual, expected, **tolerance):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for (path, one), other in zip(
    jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(one, other, **tolerance, err_msg=jax.tree_util.keystr(path))
