"""Learning rates over the steps of a run: a warm-up, then a cosine, drops at chosen epochs, or a constant."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.nearest import nearest

Schedule = Callable[[Any], jax.Array]  # step (int or traced; 0 for the first update) -> float32 learning rate


def total_steps(config: Any, steps_per_epoch: float) -> int:
  """The optimizer steps of a whole run: `config.train.steps`, or derived from the epochs if that is 0."""
  if config.train.steps:
    return int(config.train.steps)
  return round((config.train.epochs + config.optimizer.cooldown_epochs) * steps_per_epoch)


def peak_learning_rate(config: Any) -> float:
  """The rate for the run's own batch size: linear in it (the paper's recipes name one batch size each)."""
  settings = config.optimizer
  if not 0 <= settings.reference_batch < math.inf:
    raise ValueError(
      f'optimizer.reference_batch must be 0 (off) or the batch that learning_rate is meant for, but is '
      f'{settings.reference_batch}'
    )
  scale = config.train.batch_size / settings.reference_batch if settings.reference_batch else 1.0
  return settings.learning_rate * scale


def warmup_steps(config: Any, steps_per_epoch: float) -> int:
  """The optimizer steps of the linear warm-up: optimizer.warmup_steps, or from optimizer.warmup_epochs."""
  settings = config.optimizer
  _check_not_negative(settings, 'warmup_epochs', 'warmup_steps')
  if settings.warmup_steps and settings.warmup_epochs:
    raise ValueError(
      f'optimizer.warmup_steps={settings.warmup_steps} and optimizer.warmup_epochs={settings.warmup_epochs} '
      'both set the length of the warm-up: set one of them to 0'
    )
  return int(settings.warmup_steps) or round(settings.warmup_epochs * steps_per_epoch)


def drop_steps(config: Any, steps_per_epoch: float) -> tuple[int, ...]:
  """The first steps at a lower rate, one for each of optimizer.drops; () unless the schedule is 'steps'."""
  if config.optimizer.schedule != 'steps':
    return ()
  return tuple(round(epoch * steps_per_epoch) for epoch in config.optimizer.drops)


def learning_rate_schedule(config: Any, steps_per_epoch: float) -> Schedule:
  """A linear warm-up, then what `config.optimizer.schedule` names, over the steps of the run.

  The warm-up goes to the peak, which is `learning_rate` scaled to the batch, from `warmup_factor` times the
  peak, or from `warmup_start` (not scaled) if `warmup_factor` is 0. Every schedule is counted from step 0,
  warm-up included. A run that is shorter than its warm-up ends in it.

  Args:
    config: uses optimizer.{schedule, learning_rate, reference_batch, warmup_epochs, warmup_steps,
      warmup_start, warmup_factor, floor, cooldown_epochs, per_epoch, drops, drop_factor} and
      train.{steps, epochs, batch_size}.
    steps_per_epoch: optimizer steps in one pass over the training images; need not be whole.

  Returns:
    A function from the step (0 for the first update; int or traced) to a float32 scalar.

  Raises:
    ValueError: if the run has no steps, a field is outside its range, or fields contradict each other.
  """
  settings = config.optimizer
  if settings.schedule not in SCHEDULES:
    raise ValueError(
      f'optimizer.schedule is {settings.schedule!r}: expected one of {", ".join(SCHEDULES)}'
      f'{nearest(settings.schedule, SCHEDULES)}'
    )
  total = total_steps(config, steps_per_epoch)
  if total < 1:
    raise ValueError(
      f'a run needs at least one step: train.steps={config.train.steps}, '
      f'train.epochs={config.train.epochs} at {steps_per_epoch} steps per epoch make {total}'
    )
  _check_not_negative(settings, 'learning_rate', 'warmup_start', 'floor', 'cooldown_epochs')
  if not 0 <= settings.warmup_factor <= 1:
    raise ValueError(
      'optimizer.warmup_factor must be 0 (off: the warm-up begins at warmup_start) or a fraction of the peak '
      f'up to 1, but is {settings.warmup_factor}'
    )
  peak, warmup = peak_learning_rate(config), warmup_steps(config, steps_per_epoch)
  start = settings.warmup_factor * peak if settings.warmup_factor else settings.warmup_start
  after_warmup = SCHEDULES[settings.schedule](config, steps_per_epoch)

  def schedule(step):
    step = jnp.asarray(step, jnp.float32)
    # A warm-up of a number of steps rises within an epoch, so it is not held for the whole of one.
    rising_step = step if settings.warmup_steps else _held(settings, step, steps_per_epoch)
    rising = start + (peak - start) * rising_step / max(warmup, 1)
    return jnp.where(rising_step < warmup, rising, after_warmup(step))

  return schedule


def cosine(config: Any, steps_per_epoch: float) -> Schedule:
  """A cosine over the whole run, from the peak to `floor` (the paper, supplementary Table 2).

  As it is counted from step 0, the rate joins it after the warm-up at that step's value, a little below the
  peak, as in the released code. It stays at `floor`, which is not scaled to the batch, for the cool-down.
  With `per_epoch` the rate of an epoch's first step serves all of it.
  """
  settings, total = config.optimizer, total_steps(config, steps_per_epoch)
  if len(settings.drops):
    raise ValueError(
      f"optimizer.drops={tuple(settings.drops)} needs optimizer.schedule='steps'; 'cosine' takes drops=()"
    )
  peak, floor = peak_learning_rate(config), settings.floor
  falling_steps = total - round(settings.cooldown_epochs * steps_per_epoch)
  if falling_steps < 1:
    raise ValueError(
      f'optimizer.cooldown_epochs={settings.cooldown_epochs} leaves none of the {total} steps of the run'
    )

  def rate(step):
    step = _held(settings, step, steps_per_epoch)
    return floor + 0.5 * (peak - floor) * (1 + jnp.cos(jnp.pi * jnp.minimum(step / falling_steps, 1.0)))

  return rate


def steps(config: Any, steps_per_epoch: float) -> Schedule:
  """The peak, multiplied by `drop_factor` after each number of epochs in `drops`.

  (27, 33) drops after 27 whole epochs, that is from the start of the 28th, and again after 33. `floor` does
  not apply and `per_epoch` only to a warm-up of epochs.
  """
  settings = config.optimizer
  _check_no_cooldown(settings)
  _check_drops(config, steps_per_epoch)
  peak, boundaries = peak_learning_rate(config), drop_steps(config, steps_per_epoch)

  def rate(step):
    value = jnp.full_like(step, peak, jnp.float32)
    for number, boundary in enumerate(boundaries, 1):
      value = jnp.where(step >= boundary, peak * settings.drop_factor**number, value)
    return value

  return rate


def constant(config: Any, steps_per_epoch: float) -> Schedule:
  """The peak to the end of the run; `floor` does not apply and `per_epoch` only to a warm-up of epochs."""
  del steps_per_epoch
  settings = config.optimizer
  _check_no_cooldown(settings)
  if len(settings.drops):
    raise ValueError(
      f"optimizer.drops={tuple(settings.drops)} needs optimizer.schedule='steps'; 'constant' takes drops=()"
    )
  peak = peak_learning_rate(config)
  return lambda step: jnp.full_like(step, peak, jnp.float32)


SCHEDULES: dict[str, Callable[[Any, float], Schedule]] = {
  'cosine': cosine,
  'steps': steps,
  'constant': constant,
}


def _held(settings, step, steps_per_epoch):
  """The first step of the epoch that `step` lies in, if `per_epoch` is set."""
  if not settings.per_epoch:
    return step
  return jnp.floor(jnp.floor(step / steps_per_epoch) * steps_per_epoch)


def _check_not_negative(settings, *names):
  for name in names:
    value = getattr(settings, name)
    if not 0 <= value < math.inf:
      raise ValueError(f'optimizer.{name} must be 0 or more, but is {value}')


def _check_no_cooldown(settings):
  if settings.cooldown_epochs:
    raise ValueError(
      f"optimizer.cooldown_epochs={settings.cooldown_epochs} belongs to optimizer.schedule='cosine'; with "
      f'{settings.schedule!r} set train.epochs instead'
    )


def _check_drops(config, steps_per_epoch):
  """ValueError unless the drops are ascending, after the warm-up and within the run.

  A run cut short by train.steps may end before them, so that any recipe can be tried for a few steps.
  """
  settings, drops = config.optimizer, tuple(config.optimizer.drops)
  if not 0 < settings.drop_factor < 1:
    raise ValueError(f'optimizer.drop_factor must be between 0 and 1, but is {settings.drop_factor}')
  if not drops:
    raise ValueError(
      "optimizer.schedule='steps' needs optimizer.drops, epochs such as (20, 40); 'constant' has none"
    )
  numbers = all(isinstance(drop, int | float) and 0 < drop < math.inf for drop in drops)
  if not numbers or any(later <= earlier for earlier, later in itertools.pairwise(drops)):
    raise ValueError(f'optimizer.drops must be ascending numbers of epochs above 0, but is {drops}')
  warmup = warmup_steps(config, steps_per_epoch)
  if drop_steps(config, steps_per_epoch)[0] < warmup:
    raise ValueError(
      f'optimizer.drops={drops} begins inside the warm-up: epoch {drops[0]} is step '
      f'{drop_steps(config, steps_per_epoch)[0]}, and the warm-up takes {warmup}'
    )
  if not config.train.steps and drops[-1] >= config.train.epochs:
    raise ValueError(
      f'optimizer.drops={drops} must lie within the run, but train.epochs is {config.train.epochs}: remove '
      'the drops that never come, or move them'
    )
