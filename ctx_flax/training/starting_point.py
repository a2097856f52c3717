"""Where a run starts: the weights of another run or file, and which parameters learn how fast from there."""

import os
import pathlib
import re

import jax
import jax.numpy as jnp

from ctx_flax.models import weights
from ctx_flax.torch_weights import fit_state_dict, number_of_classes
from ctx_flax.torch_weights.state_dicts import read_state_dict
from ctx_flax.training import run_folder
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.damaged_checkpoints import chosen

FEWEST = 5  # scaling makes no stage consider fewer classes, unless it did before: top-5 needs five


def check_settings(config):
  """Raises ValueError for a field of config.init that has no meaning."""
  init = config.init
  weights.compile_patterns(init.allow_missing, 'init.allow_missing')
  weights.compile_patterns(init.freeze, 'init.freeze')
  if init.pretrained_rate < 0:
    raise ValueError(f'init.pretrained_rate must be a factor of 0 or more, but is {init.pretrained_rate}')


def rate_factor(config):
  """The function from a parameter's name ('stage1_block0/norm/scale') to the factor on its learning rate.

  0 where init.freeze matches; init.pretrained_rate where init.weights gave the value; 1 for the rest: what
  may be missing or is reset. It follows from the config alone, so that a resumed run needs no weights.
  """
  init = config.init
  frozen = weights.compile_patterns(init.freeze, 'init.freeze')
  fresh = weights.compile_patterns(init.allow_missing, 'init.allow_missing')
  if init.reset_classes:
    fresh = [*fresh, re.compile(weights.CLASSES)]

  def factor(name):
    if any(pattern.fullmatch(name) for pattern in frozen):
      return 0.0
    if not init.weights or any(pattern.fullmatch(name) for pattern in fresh):
      return 1.0
    return float(init.pretrained_rate)

  return factor


def check_freeze(config, params):
  """Raises ValueError for a pattern of init.freeze that matches no parameter, and so would freeze nothing."""
  names = list(weights.flatten({'params': params}))
  for given in weights.as_tuple(config.init.freeze):
    if not any(weights.matches(weights.compile_patterns(given, 'init.freeze'), name) for name in names):
      raise ValueError(f'init.freeze holds {given!r}, which matches no parameter such as {names[0][7:]}')


def with_class_counts(config, workdir, num_classes):
  """The config with the class counts of init.weights, scaled to num_classes, where it leaves them open.

  Counts that were chosen for one label set are a share of it. A run that was begun keeps its own, also where
  the weights are not there any more.
  """
  if not config.init.weights or config.model.class_counts or not config.model.name.startswith('ctx_'):
    return config
  saved = run_folder.saved(workdir)
  if saved is not None:
    counts = saved['model']['class_counts']
  else:
    model = read_weights(config.init.weights).about['model']
    before = model.get('num_classes') or num_classes
    counts = [
      min(max(int(count * num_classes / before + 0.5), min(count, FEWEST)), num_classes)
      for count in model.get('class_counts', ())
    ]
  if not counts:
    return config
  config = config.copy_and_resolve_references()
  config.model.class_counts = tuple(counts)
  return config


def initial_variables(config, model, variables):
  """What a run starts from: init.weights, and `variables` for what is missing, allowed to be, or reset.

  Args:
    config: uses init.
    model: the network.
    variables: its initial ones, {'params', 'batch_stats'?}; may be abstract.

  Returns:
    (variables, a line that says what was taken).

  Raises:
    ValueError: the weights do not fit; the message names everything that does not.
    OSError, ImportError: they cannot be read.
  """
  init = config.init
  found = read_weights(init.weights)
  theirs, gain = found.about['model'], model.mask_gain
  if theirs.get('name', '').startswith('ctx_') and theirs.get('mask_gain', 1.0) != gain:
    raise ValueError(
      f'{init.weights} was trained with model.mask_gain={theirs.get("mask_gain", 1.0)}, and its kernels mean '
      f'something else with {gain}: set --config.model.mask_gain={theirs.get("mask_gain", 1.0)}'
    )
  values, fresh = found.fit(
    model,
    allow_missing=init.allow_missing,
    reset=weights.CLASSES if init.reset_classes else '',
    initial=variables,
  )
  total = len(jax.tree.leaves(values))
  new = sorted({name.split('/')[1] for name in fresh})
  return values, f'started from {init.weights}: {total - len(fresh)} of {total} arrays' + (
    f', anew {", ".join(new)}' if new else ''
  )


def start_from(config, model, state):
  """A TrainState that starts from init.weights, its averaged weights too, and the line that says so."""
  variables, taken = initial_variables(config, model, state.variables)
  ema = jax.tree.map(lambda old, new: jnp.array(new, old.dtype), state.ema, variables) if state.ema else {}
  # Copies: a step gives its input's memory to its output, where no two leaves may share it.
  params = jax.tree.map(jnp.array, variables['params'])
  return state.replace(params=params, batch_stats=variables.get('batch_stats', {}), ema=ema), taken


class Weights:
  """Variables from elsewhere: what is known about them, and how they become those of a network.

  Attributes:
    about: {'model': keywords of create_model}, as far as they are known; num_classes 0 without a head.
    arrays: {'params/...': array}; {} of PyTorch weights, whose names only a network tells.
  """

  def __init__(self, path, about, arrays, state=None):
    self.about, self.arrays = about, arrays
    self._path, self._state = path, state

  def fit(self, model, **keywords):
    """(variables, names that keep their initial values), see ctx_flax.models.weights.fit."""
    if self._state is not None:
      return fit_state_dict(self._state, model, what=self._path, **keywords)
    return weights.fit(model, self.arrays, what=self._path, **keywords)


def read_weights(path):
  """The Weights in a run's folder, a file of ours, or a PyTorch file.

  Of a run the averaged weights are taken where it keeps them, of its newest checkpoint, or of the one that
  is named by its folder, RUN/checkpoints/STEP.

  Raises:
    ValueError, OSError, ImportError: they cannot be read.
  """
  path = str(path)
  if os.path.isdir(path):
    return _of_run(path)
  if weights.is_ours(path):
    variables, about = weights.load_weights(path)
    variables.pop('class_tables', None)  # of an export; they follow from the parameters
    return Weights(path, {'model': {}} | about, weights.flatten(variables))
  state = read_state_dict(path)
  return Weights(path, {'model': {'num_classes': number_of_classes(state)}}, {}, state)


def _of_run(path):
  step, folder = 'latest', pathlib.Path(path)
  if folder.parent.name == 'checkpoints' and folder.name.isdigit():
    step, folder = folder.name, folder.parent.parent
  settings = run_folder.saved(folder)
  if settings is None:
    raise FileNotFoundError(f'{folder} is not the folder of a run: it has no config.json')
  with Checkpoints(folder / 'checkpoints', read_only=True) as checkpoints:
    read = lambda step: checkpoints.read(step, 'variables')
    _, tree = chosen(checkpoints, step, read, option=f'{folder}/checkpoints/')
  variables = tree.get('ema') or {name: tree[name] for name in ('params', 'batch_stats') if tree.get(name)}
  arrays = weights.flatten(variables)
  model = {name: value for name, value in settings['model'].items() if value != []}
  heads = ('contextualizer/class_embedding', 'head/bias', 'fc/bias')
  classes = next(len(arrays[f'params/{name}']) for name in heads if f'params/{name}' in arrays)
  return Weights(path, {'model': model | {'num_classes': classes}}, arrays)
