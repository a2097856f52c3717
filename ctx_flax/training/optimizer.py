"""AdamW and SGD, with clipping, weight decay, and factors for groups of parameters and for layers.

Schedules are in schedules.py and what single parameters have of their own in parameter_groups.py.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ctx_flax.nearest import nearest
from ctx_flax.training.parameter_groups import (
  NO_DECAY,
  check_groups,
  check_no_decay,
  decay_mask,
  group_factors,
  layer_factor,
  unit_factor,
)
from ctx_flax.training.schedules import (
  SCHEDULES,
  drop_steps,
  learning_rate_schedule,
  peak_learning_rate,
  total_steps,
  warmup_steps,
)

__all__ = [
  'NO_DECAY',
  'OPTIMIZERS',
  'SCHEDULES',
  'advance_schedule',
  'decay_mask',
  'drop_steps',
  'group_factors',
  'learning_rate_schedule',
  'make_optimizer',
  'peak_learning_rate',
  'total_steps',
  'warmup_steps',
]

Factors = Callable[[Any], tuple[Any, Any]]  # params -> trees of factors on the rate and on the weight decay


def make_optimizer(
  config: Any,
  schedule: Callable[[Any], jax.Array] | float,
  factor: Callable[[str], float] = unit_factor,
  network: Any = None,
) -> optax.GradientTransformation:
  """The optimizer that config.optimizer describes: clipping, then what OPTIMIZERS has, times the rate.

  Args:
    config: uses optimizer.{name, weight_decay, no_decay, clip_norm, groups, layer_decay} and the fields of
      the named optimizer; clip_norm 0 is no clipping.
    schedule: what `learning_rate_schedule` returns, or a number.
    factor: name of a parameter -> another factor on its rate, beside that of its group. A parameter whose
      factors multiply to 0 is frozen: it stays as it is, and so do its moments.
    network: declares `num_layers` and `layer_id(name)`; only layer_decay below 1 needs it.

  Returns:
    An optax.GradientTransformation. It expects gradients that are already summed over the devices: the
    norm that is clipped is that of the whole batch's gradient, frozen parameters included. Its `init` raises
    what `group_factors` and `decay_mask` do.

  Raises:
    ValueError: a name is unknown, or a field is outside its range.
  """
  settings = config.optimizer
  if settings.name not in OPTIMIZERS:
    raise ValueError(
      f'optimizer.name is {settings.name!r}: expected one of {", ".join(OPTIMIZERS)}'
      f'{nearest(settings.name, OPTIMIZERS)}'
    )
  for name in ('weight_decay', 'clip_norm'):
    if not 0 <= getattr(settings, name) < math.inf:
      raise ValueError(f'optimizer.{name} must be 0 (off) or more, but is {getattr(settings, name)}')
  check_groups(settings.groups)
  check_no_decay(settings.no_decay)
  of_layer = layer_factor(settings.layer_decay, network)

  def factors(params):
    rates, decays = group_factors(params, settings.groups, lambda name: factor(name) * of_layer(name))
    decays = jax.tree.map(
      lambda decay, decayed: decay if decayed else 0.0, decays, decay_mask(params, settings.no_decay)
    )
    return rates, decays

  clipping = [optax.clip_by_global_norm(settings.clip_norm)] if settings.clip_norm else []
  return optax.chain(
    *clipping, *OPTIMIZERS[settings.name](settings, factors), optax.scale_by_learning_rate(schedule)
  )


def adamw(optimizer: Any, factors: Factors) -> list[optax.GradientTransformation]:
  """AdamW, https://arxiv.org/abs/1711.05101: weight decay decoupled, times the rate.

  Args:
    optimizer: uses beta1, beta2, eps, weight_decay.
    factors: params -> (factors on the rate, factors on the decay).
  """

  def decay_and_scale(update, parameter, rate, decay):
    return _scaled(_decayed(update, parameter, optimizer.weight_decay * decay), rate)

  moments = optax.scale_by_adam(optimizer.beta1, optimizer.beta2, optimizer.eps)
  return [_without_frozen(moments, factors), _for_each(decay_and_scale, factors)]


def sgd(optimizer: Any, factors: Factors) -> list[optax.GradientTransformation]:
  """SGD with momentum as torch.optim.SGD without dampening.

    g = g + weight_decay * p
    buffer = momentum * buffer + g             (the first buffer is g)
    p = p - rate * buffer                      (nesterov: p - rate * (g + momentum * buffer))

  The buffer is independent of the rate, so that a drop of the rate acts at once.

  Args:
    optimizer: uses momentum, nesterov, weight_decay.
    factors: params -> (factors on the rate, factors on the decay).
  """
  if not 0 <= optimizer.momentum < 1:
    raise ValueError(f'optimizer.momentum must be at least 0 (off) and below 1, but is {optimizer.momentum}')
  if optimizer.nesterov and not optimizer.momentum:
    raise ValueError('optimizer.nesterov needs a momentum, but optimizer.momentum is 0')

  def decay_gradient(gradient, parameter, rate, factor):
    del rate
    return _decayed(gradient, parameter, optimizer.weight_decay * factor)

  def scale(update, parameter, rate, factor):
    del parameter, factor
    return _scaled(update, rate)

  buffer = optax.trace(optimizer.momentum, optimizer.nesterov) if optimizer.momentum else optax.identity()
  return [_for_each(decay_gradient, factors), _without_frozen(buffer, factors), _for_each(scale, factors)]


OPTIMIZERS: dict[str, Callable[[Any, Factors], list[optax.GradientTransformation]]] = {
  'adamw': adamw,
  'sgd': sgd,
}


def advance_schedule(old_opt_state: Any, new_opt_state: Any) -> Any:
  """The old state with the new count of the schedule, for a step that is skipped: its rate is used up.

  Args:
    old_opt_state: before the update.
    new_opt_state: after it.

  Raises:
    ValueError: the state holds no count of a schedule, as that of an optimizer with a constant rate.
  """

  def is_schedule(node):
    return isinstance(node, optax.ScaleByScheduleState)

  if not any(map(is_schedule, jax.tree.leaves(old_opt_state, is_leaf=is_schedule))):
    raise ValueError(
      'the state of the optimizer holds no optax.ScaleByScheduleState, so a skipped step cannot advance its '
      'schedule: give make_optimizer a schedule instead of a number'
    )
  return jax.tree.map(
    lambda old, new: new if is_schedule(new) else old, old_opt_state, new_opt_state, is_leaf=is_schedule
  )


def _for_each(change, factors):
  """Applies change(update, parameter, factor on the rate, factor on the decay) to every parameter."""

  def init(params):
    factors(params)  # for its errors
    return optax.EmptyState()

  def update(updates, state, params):
    return jax.tree.map(change, updates, params, *factors(params)), state

  return optax.GradientTransformation(init, update)


def _without_frozen(inner, factors):
  """`inner` on gradients that are zero for frozen parameters, so that their moments stay zero and finite."""

  def update(updates, state, params):
    rates, _ = factors(params)
    updates = jax.tree.map(lambda update, rate: update if rate else jnp.zeros_like(update), updates, rates)
    return inner.update(updates, state, params)

  return optax.GradientTransformation(inner.init, update)


def _decayed(update, parameter, decay):
  return update + decay * parameter if decay else update


def _scaled(update, rate):
  if not rate:
    return jnp.zeros_like(update)  # frozen, even if the update is not finite
  return update if rate == 1 else rate * update
