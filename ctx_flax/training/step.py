"""One training step and one evaluation step, as pure functions that know the devices only as axis 'batch'.

Run them through training/parallel.py. Nothing in them waits for the host, and a model's intermediates
never leave them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from ctx_flax.training import losses, metrics

AXIS = 'batch'


class TrainState(struct.PyTreeNode):
  """All that changes in training. Random keys are not in it: they come from the seed and `step`."""

  step: jax.Array  # int32 scalar: optimizer steps taken
  params: Any
  batch_stats: Any  # {} where the model has no BatchNorm
  opt_state: Any
  ema: Any  # averaged {'params', 'batch_stats'?}; {} where it is off

  @property
  def variables(self):
    """What `model.apply` and the evaluation step take; `ema` has the same structure."""
    return _variables(self.params, self.batch_stats)


def _variables(params, batch_stats):
  return {'params': params, 'batch_stats': batch_stats} if batch_stats else {'params': params}


def create_state(model, tx, rng, image_shape, ema):
  """Initialises a model and its optimizer.

  Args:
    model: a network of ctx_flax.models.
    tx: the optimizer, an optax.GradientTransformation.
    rng: a PRNG key.
    image_shape: (h, w, c) of one image.
    ema: whether to keep averaged variables; they start as the initial ones.

  Returns:
    A TrainState on the default device.
  """
  variables = jax.jit(lambda key: model.init(key, jnp.zeros((1, *image_shape)), train=False))(rng)
  params, batch_stats = variables['params'], variables.get('batch_stats', {})
  # Copies in float32: the step gives its input's memory to its output, where no two leaves may share it, and
  # a decay of 0.9999 needs more digits than bfloat16 has.
  averaged = jax.tree.map(
    lambda x: jnp.array(x, jnp.promote_types(x.dtype, jnp.float32)), _variables(params, batch_stats)
  )
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=batch_stats,
    opt_state=tx.init(params),
    ema=averaged if ema else {},
  )


def _check_batch(batch):
  missing = {'image', 'label', 'weight'} - set(batch)
  if missing:
    raise ValueError(
      f'a batch needs image, label and weight, but {sorted(missing)} is missing: {sorted(batch)}'
    )


def make_train_step(model, tx, config):
  """The function (state, batch) -> (state, metrics) of one optimizer step.

  A device's loss is its own sums over the counts of all devices, so that the devices' losses and gradients
  add up to those of the whole batch, also where stages count different numbers of images per device.

  Args:
    model: a network of ctx_flax.models. BatchNorm takes its statistics over all devices, whatever the
      model's axis_name.
    tx: the optimizer, an optax.GradientTransformation.
    config: uses seed, loss.{alpha, label_smoothing} and train.ema_decay (0: off).

  Returns:
    A function of a TrainState, the same on every device, and a device's part of the batch: 'image'
    (b, h, w, c), 'label' int (b,), 'weight' (b,) 1 for images and 0 for filling rows, and for mixed images
    'other_label' and 'lam' (b,). It returns the next TrainState and the metrics {name: (sum, count)} of the
    whole batch before the update: loss1..loss4 and those of `stage_metrics`, taken against the heavier label
    of mixed images.

  Raises (when traced):
    ValueError: for a batch without its arrays, or a state whose `ema` is kept where train.ema_decay is 0 or
      is missing where it is not.
  """
  selection = getattr(model, 'class_selection', 'rerank')
  decay = config.train.ema_decay
  if hasattr(model, 'axis_name'):
    # The state is one for all devices, so the statistics of BatchNorm must be those of the whole batch.
    model = model.clone(axis_name=AXIS)

  def train_step(state, batch):
    _check_batch(batch)
    if bool(decay) != bool(state.ema):
      raise ValueError(f'train.ema_decay={decay} does not fit a state created with ema={bool(state.ema)}')
    # A key of its own for every step and device, from the seed alone: a resumed run draws the same ones.
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))

    def loss_function(params):
      (_, out), updated = model.apply(
        _variables(params, state.batch_stats),
        batch['image'],
        train=True,
        mutable=['batch_stats'],
        rngs={'drop_path': key},
      )
      stage_losses = losses.stage_losses(
        out,
        batch['label'],
        selection=selection,
        label_smoothing=config.loss.label_smoothing,
        other_labels=batch.get('other_label'),
        lam=batch.get('lam'),
        weights=batch['weight'],
      )
      sums = {s: total for s, (total, _) in stage_losses.items()}
      counts = {s: count for s, (_, count) in stage_losses.items()}
      counts = jax.lax.stop_gradient(jax.lax.psum(counts, AXIS))
      loss = losses.combine(sums, counts, config.loss.alpha)
      return loss, (_local_metrics(out, stage_losses, batch, selection), updated.get('batch_stats', {}))

    gradients, (local, batch_stats) = jax.grad(loss_function, has_aux=True)(state.params)
    gradients = jax.lax.psum(gradients, AXIS)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if decay:
      ema = jax.tree.map(
        lambda average, new: decay * average + (1 - decay) * new.astype(average.dtype),
        ema,
        _variables(params, batch_stats),
      )
    state = TrainState(state.step + 1, params, batch_stats, opt_state, ema)
    return state, jax.lax.psum(local, AXIS)

  return train_step


def make_eval_step(model):
  """The function (variables, batch) -> metrics of one batch; rows of weight 0 count as absent.

  The metrics are those of the training step, with hard labels and no label smoothing.
  """
  selection = getattr(model, 'class_selection', 'rerank')

  def eval_step(variables, batch):
    _check_batch(batch)
    _, out = model.apply(variables, batch['image'], train=False)
    stage_losses = losses.stage_losses(out, batch['label'], selection=selection, weights=batch['weight'])
    return jax.lax.psum(_local_metrics(out, stage_losses, batch, selection), AXIS)

  return eval_step


def _local_metrics(out, stage_losses, batch, selection):
  labels = batch['label']
  if 'lam' in batch:
    labels, _, _ = losses.heavier_first(labels, batch['other_label'], batch['lam'])
  named = {f'loss{s}': value for s, value in stage_losses.items()}
  return named | metrics.stage_metrics(out, labels, selection, batch['weight'])
