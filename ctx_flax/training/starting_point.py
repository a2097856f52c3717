"""Where a run starts: the weights of another run or file, and which parameters learn how fast from there."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.models import is_contextual, weights
from ctx_flax.training.state import TrainState
from ctx_flax.training.task import Task

# Attributes of a contextual network that say what parameters mean: (default, which parameters).
MEANINGS = {'mask_gain': (1.0, 'kernels'), 'merge_contrast': (False, 'mergers')}


@dataclasses.dataclass(frozen=True)
class Weights:
  """Variables from elsewhere: what is known about them, and how they become those of a network.

  Attributes:
    about: {'model': keywords of create_model}, as far as they are known; num_classes 0 without a head.
    arrays: {'params/...': array}; {} of PyTorch weights, whose names only a network tells.
    fit: of a network and the keywords of ctx_flax.models.weights.fit, (variables, names that keep their
      initial values).
  """

  about: dict[str, Any]
  arrays: Mapping[str, Any]
  fit: Callable[..., tuple[Any, list[str]]]


def check_settings(config: Any) -> None:
  """Raises ValueError for a field of config.init that has no meaning."""
  init = config.init
  weights.compile_patterns(init.allow_missing, 'init.allow_missing')
  weights.compile_patterns(init.freeze, 'init.freeze')
  if init.pretrained_rate < 0:
    raise ValueError(f'init.pretrained_rate must be a factor of 0 or more, but is {init.pretrained_rate}')


def rate_factor(config: Any, fresh: str = '', network: Any = None) -> Callable[[str], float]:
  """The function from a parameter's name ('stage1_block0/norm/scale') to the factor on its learning rate.

  0 if init.freeze matches; 1 for what starts from random values: everything without init.weights, and what
  may be missing there or matches `fresh`; 0 for the rest if one of the regexes `fixed_parameters` matches,
  which a network may declare; else init.pretrained_rate. It follows from config and network alone, so that a
  resumed run needs no weights.
  """
  init = config.init
  frozen = weights.compile_patterns(init.freeze, 'init.freeze')
  fixed = [*map(re.compile, getattr(network, 'fixed_parameters', ()))]
  starting_anew = weights.compile_patterns(init.allow_missing, 'init.allow_missing')
  if fresh:
    starting_anew = [*starting_anew, re.compile(fresh)]

  def factor(name):
    if any(pattern.fullmatch(name) for pattern in frozen):
      return 0.0
    if not init.weights or any(pattern.fullmatch(name) for pattern in starting_anew):
      return 1.0
    return 0.0 if any(pattern.fullmatch(name) for pattern in fixed) else float(init.pretrained_rate)

  return factor


def check_freeze(config: Any, params: Any) -> None:
  """Raises ValueError for a pattern of init.freeze that matches no parameter, and so would freeze nothing."""
  names = list(weights.flatten({'params': params}))
  for pattern in weights.as_tuple(config.init.freeze):
    compiled = weights.compile_patterns(pattern, 'init.freeze')
    if not any(weights.matches(compiled, name) for name in names):
      raise ValueError(f'init.freeze holds {pattern!r}, which matches no parameter such as {names[0][7:]}')


def initial_variables(
  config: Any, task: Task, model: Any, source: Weights, variables: Any
) -> tuple[Any, str]:
  """What a run starts from: init.weights, and `variables` for what is missing, allowed to be, or starts anew.

  Args:
    config: uses init.
    task: says which parameters start anew.
    model: the network.
    source: what read_weights(init.weights) returned.
    variables: its initial ones, {'params', 'batch_stats'?}; may be abstract.

  Returns:
    (variables, a line that says what was taken).

  Raises:
    ValueError: the weights do not fit; the message names everything that does not.
  """
  init, theirs = config.init, source.about['model']
  if is_contextual(theirs.get('backbone') or theirs.get('name', '')):
    for field, (default, what) in MEANINGS.items():
      own, saved = getattr(model, field, default), theirs.get(field, default)
      # A plain network has kernels of these, but no mergers.
      if own != saved and (model.contextual or what == 'kernels'):
        raise ValueError(
          f'{init.weights} was trained with model.{field}={saved}, and its {what} mean something else '
          f'with {own}: set --config.model.{field}={saved}'
        )
  values, fresh = source.fit(
    model, allow_missing=init.allow_missing, reset=task.fresh(config), initial=variables
  )
  total = len(jax.tree.leaves(values))
  new = sorted({name.split('/')[1] for name in fresh})
  return values, f'started from {init.weights}: {total - len(fresh)} of {total} arrays' + (
    f', anew {", ".join(new)}' if new else ''
  )


def start_from(
  config: Any, task: Task, model: Any, source: Weights, state: TrainState
) -> tuple[TrainState, str]:
  """A TrainState that starts from init.weights, its averaged weights too, and the line that says so."""
  variables, taken = initial_variables(config, task, model, source, state.variables)
  ema = jax.tree.map(lambda old, new: jnp.array(new, old.dtype), state.ema, variables) if state.ema else {}
  # Copies: a step gives its input's memory to its output, where no two leaves may share it.
  params = jax.tree.map(jnp.array, variables['params'])
  return state.replace(params=params, batch_stats=variables.get('batch_stats', {}), ema=ema), taken
