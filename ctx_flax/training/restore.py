"""Weights of a run or file, restored for use. No optimizer is built for it."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.models import weights
from ctx_flax.torch_weights import fit_state_dict, number_of_classes
from ctx_flax.torch_weights.state_dicts import read_state_dict
from ctx_flax.training import run_folder
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.damaged_checkpoints import chosen
from ctx_flax.training.starting_point import Weights
from ctx_flax.training.state import TrainState
from ctx_flax.training.task import Task

VARIANTS = ('all', 'raw', 'EMA')  # what config.eval.weights may be


def as_trees(state: TrainState) -> dict[str, dict[str, Any]]:
  """The two parts of a checkpoint: what evaluation needs, and what only training does."""
  return {
    'variables': {'params': state.params, 'batch_stats': state.batch_stats, 'ema': state.ema},
    'optimizer': {'step': state.step, 'opt_state': state.opt_state},
  }


def variants_of(raw: Any, ema: Any, which: str = 'all') -> dict[str, Any]:
  """{'raw': variables, 'EMA': variables}: those that exist and config.eval.weights asks for.

  Raises:
    ValueError: an unknown name, or averaged weights although the run keeps none.
  """
  if which not in VARIANTS:
    raise ValueError(f'eval.weights is {which!r}: it must be one of {", ".join(VARIANTS)}')
  present = {'raw': raw} | ({'EMA': ema} if ema else {})
  if which == 'EMA' and 'EMA' not in present:
    raise ValueError('eval.weights is EMA, but this run keeps none (train.ema_decay is 0)')
  return present if which == 'all' else {which: present[which]}


def restore_variants(
  config: Any, workdir: pathlib.Path, task: Task, model: Any
) -> tuple[str, int, dict[str, Any]]:
  """The weights to test or to look at: of a checkpoint in workdir, or of init.weights without a run.

  Args:
    config: eval.checkpoint and eval.weights choose; init.weights is read if workdir holds no run, or one
      that did not start from these weights.
    workdir: the folder of the run.
    task: of the config.
    model: its network.

  Returns:
    (where they are from, for messages, the step (0 of a file), {'raw': variables, 'EMA': variables}).

  Raises:
    ValueError: there is no such checkpoint, or the weights do not fit the model.
    OSError, ImportError: they cannot be read.
  """
  expected = jax.eval_shape(lambda: task.initial_variables(config, model, jax.random.key(0)))
  if from_file(config, workdir):
    path = config.init.weights
    variables, _ = read_weights(path).fit(model, initial=expected)
    return str(path), 0, variants_of(variables, None, config.eval.weights)
  params, batch_stats = expected['params'], expected.get('batch_stats', {})
  tree: dict[str, Any] = {'params': params, 'batch_stats': batch_stats, 'ema': {}}
  if config.train.ema_decay > 0:
    # In float32 at least, as ctx_flax.training.state keeps them.
    tree['ema'] = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, jnp.promote_types(x.dtype, jnp.float32)), expected
    )
  with Checkpoints(workdir / 'checkpoints', read_only=True, metric=task.best) as checkpoints:
    step, trees = chosen(
      checkpoints, config.eval.checkpoint, lambda step: checkpoints.restore(step, {'variables': tree})
    )
  restored = trees['variables']
  raw = {name: restored[name] for name in ('params', 'batch_stats') if restored[name]}
  return f'step {step} of {workdir}', step, variants_of(raw, restored['ema'], config.eval.weights)


def restore_network(config: Any, workdir: pathlib.Path, task: Task, source: Any) -> tuple[Any, Any, int, str]:
  """A trained network, ready to be applied outside of the pmapped steps.

  Args:
    config, workdir, task: as for `restore_variants`; eval.weights 'all' takes the averaged weights if there
      are any.
    source: what task.build_model asks of a source.

  Returns:
    (model, its variables on the default device and the tables of model.class_tables, step, 'EMA' or 'raw').

  Raises:
    ValueError, OSError, ImportError: see `restore_variants`.
  """
  model = task.build_model(config, source)
  if hasattr(model, 'axis_name'):
    model = model.clone(axis_name=None)
  _, step, variants = restore_variants(config, workdir, task, model)
  variant = 'EMA' if 'EMA' in variants else 'raw'
  variables = jax.device_put(variants[variant])
  tables = model.class_tables(variables) if hasattr(model, 'class_tables') else {}
  return model, {**variables, **tables}, step, variant


def from_file(config: Any, workdir: str | os.PathLike[str]) -> bool:
  """Whether init.weights themselves are meant, not a run in workdir (which may have started from them)."""
  if not config.init.weights:
    return False
  saved = run_folder.saved(workdir)
  return saved is None or saved.get('init', {}).get('weights', '') != config.init.weights


def read_weights(path: str | os.PathLike[str]) -> Weights:
  """The Weights in a run's folder, a file of ours, or a PyTorch file.

  Of a run the averaged weights are taken if it keeps them, of its newest checkpoint, or of the one that
  is named by its folder, RUN/checkpoints/STEP.

  Raises:
    ValueError, OSError, ImportError: they cannot be read.
  """
  path = os.path.expanduser(path)
  if os.path.isdir(path):
    return _of_run(path)
  if weights.is_ours(path):
    variables, about = weights.load_weights(path)
    variables.pop('class_tables', None)  # of an export; they follow from the parameters
    return _ours(path, {'model': {}} | about, weights.flatten(variables))
  return _of_torch(path)


def _of_run(path: str) -> Weights:
  step, folder = 'latest', pathlib.Path(path)
  if folder.parent.name == 'checkpoints' and folder.name.isdigit():
    step, folder = folder.name, folder.parent.parent
  settings = run_folder.saved(folder)
  if settings is None:
    raise FileNotFoundError(f'{folder} is not the folder of a run: it has no config.json')
  with Checkpoints(folder / 'checkpoints', read_only=True) as checkpoints:
    _, tree = chosen(
      checkpoints, step, lambda step: checkpoints.read(step, 'variables'), option=f'{folder}/checkpoints/'
    )
  variables = tree.get('ema') or {name: tree[name] for name in ('params', 'batch_stats') if tree.get(name)}
  arrays = weights.flatten(variables)
  model = {name: value for name, value in settings['model'].items() if value != []}
  return _ours(path, {'model': model | {'num_classes': weights.number_of_classes(arrays)}}, arrays)


def _ours(path: str, about: dict[str, Any], arrays: Mapping[str, Any]) -> Weights:
  def fit(model: Any, **keywords: Any) -> tuple[Any, list[str]]:
    return weights.fit(model, arrays, what=path, **keywords)

  return Weights(about, arrays, fit)


def _of_torch(path: str) -> Weights:
  state = read_state_dict(path)

  def fit(model: Any, **keywords: Any) -> tuple[Any, list[str]]:
    return fit_state_dict(state, model, what=path, **keywords)

  return Weights({'model': {'num_classes': number_of_classes(state)}}, {}, fit)


def classes_of_weights(
  config: Any, workdir: str | os.PathLike[str], error: Exception, warn: Callable[[str], Any]
) -> tuple[int, tuple[str, ...], Mapping[str, Any]]:
  """What is classified, by the weights alone: (how many classes, their names, all that the weights tell).

  Of several tasks, which do not import one another.

  Args:
    config: of the run.
    workdir: its folder; without a run in it, init.weights are read.
    error: why the data cannot tell.
    warn: is told in one line if classes are called by their numbers.
  """
  about = read_weights(config.init.weights if from_file(config, workdir) else workdir).about
  number = about['model'].get('num_classes') or config.model.num_classes
  if about.get('class_names'):
    return number, tuple(about['class_names']), about
  warn(f'the classes are called by their numbers: {" ".join(str(error).split())}')
  return number, tuple(map(str, range(number))), about
