"""One training step and one evaluation step, as pure functions that know the devices only as axis 'batch'.

Run them through training/parallel.py. Nothing in them waits for the host, and a model's intermediates
never leave them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ctx_flax.training.accumulation import accumulated_gradients, gradients_of
from ctx_flax.training.optimizer import advance_schedule
from ctx_flax.training.parallel import AXIS
from ctx_flax.training.state import TrainState, as_variables
from ctx_flax.training.task import Evaluator, Objective

ON_NAN = 'stop', 'skip'


def check_settings(config: Any) -> None:
  """Raises ValueError for a field of the training step that has no meaning."""
  if config.train.accumulation < 1:
    raise ValueError(f'train.accumulation must be 1 (off) or more, but is {config.train.accumulation}')
  if config.train.on_nan not in ON_NAN:
    raise ValueError(f'train.on_nan must be one of {ON_NAN}, but is {config.train.on_nan!r}')


def make_train_step(objective: Objective, tx: optax.GradientTransformation, config: Any) -> Callable:
  """The function (state, batch) -> (state, terms) of one optimizer step.

  Args:
    objective: what is minimised, of a Task.
    tx: the optimizer.
    config: uses seed and train.{ema_decay (0: off), accumulation, on_nan}.

  Returns:
    A function of a TrainState, the same on every device, and a device's rows of the batch, {name: array
    (b, ...)}. It returns the next TrainState and {name: (sum, count)} of the losses and metrics of the whole
    batch before the update, and if train.on_nan is 'skip', skipped: a step whose loss or gradient is not
    finite changes nothing but the number of the step and counts as (1, 1).

  Raises:
    ValueError: for a setting without meaning; when traced, for a batch that lacks arrays or cannot be
      divided, or a state whose `ema` is kept although train.ema_decay is 0, or the reverse.
  """
  check_settings(config)
  decay, parts = config.train.ema_decay, config.train.accumulation

  def compute(params, batch_stats, batch, key, step):
    if parts == 1:
      return gradients_of(objective, params, batch_stats, batch, key, step)
    return accumulated_gradients(objective, parts, params, batch_stats, batch, key, step)

  def train_step(state, batch):
    if bool(decay) != bool(state.ema):
      raise ValueError(f'train.ema_decay={decay} does not fit a state created with ema={bool(state.ema)}')
    # A key of its own for every step and device, from the seed alone: a resumed run draws the same ones.
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
    gradients, batch_stats, terms = compute(state.params, state.batch_stats, batch, key, state.step)
    gradients, terms = jax.lax.psum((gradients, terms), AXIS)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if decay:
      ema = jax.tree.map(
        lambda average, new: decay * average + (1 - decay) * new.astype(average.dtype),
        ema,
        as_variables(params, batch_stats),
      )
    new = TrainState(state.step + 1, params, batch_stats, opt_state, ema)
    if config.train.on_nan == 'skip':
      sums = [terms[name][0] for name in objective.weights if name in terms]
      new, terms = skip_unless_finite(state, new, [*jax.tree.leaves(gradients), *sums], terms)
    return new, terms

  return train_step


def skip_unless_finite(old: TrainState, new: TrainState, values: list[jax.Array], terms: Any):
  """(new, terms) if all `values` are finite, else (the old state with `step` advanced, all terms zero)."""
  finite = jnp.stack([jnp.isfinite(x).all() for x in values]).all()
  # The schedule goes on: its rate is that of the step, however many were skipped.
  unchanged = old.replace(step=new.step, opt_state=advance_schedule(old.opt_state, new.opt_state))
  kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, unchanged)
  terms = jax.tree.map(lambda x: jnp.where(finite, x, jnp.zeros_like(x)), terms)
  return kept, terms | {'skipped': (1.0 - finite, jnp.ones(()))}


def make_eval_step(evaluator: Evaluator) -> Callable:
  """The function (variables, batch) -> (sums over all devices, rows of all devices) of one batch.

  Args:
    evaluator: of a Task.

  Returns:
    A function that runs `evaluator.outputs`. Rows come back in the order of the batch, beside its 'weight',
    which is 0 for rows that only fill the batch; {} if the evaluator takes none.
  """

  def eval_step(variables, batch):
    sums, rows = evaluator.outputs(variables, batch)
    if rows:
      rows = jax.lax.all_gather({**rows, 'weight': batch['weight']}, AXIS, tiled=True)
    return jax.lax.psum(sums, AXIS), rows

  return eval_step
