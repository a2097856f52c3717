"""Checkpoints of a run: atomic, in the background, the newest few and the best kept, checked when restored.

A checkpoint holds named trees ('variables', 'optimizer'), so that a reader may take one of them. No random
keys and no iterators are in it: both follow from the seed and the step.
"""

import contextlib
import errno
import os
import pathlib
import shutil

import flax.serialization
import flax.traverse_util
import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

LISTED = 6  # names in an error message, of each kind
NO_SPACE = os.strerror(errno.ENOSPC)


class SaveError(OSError):
  """A checkpoint could not be written; those before it are as they were."""


class Checkpoints:
  """The checkpoints in a folder, by step. Close it, or use it in a `with`, so that the last one is complete.

  Args:
    folder: made where it does not exist, unless read_only.
    keep: how many of the newest stay when another is saved.
    keep_best: whether the one that was saved with the highest accuracy stays too (of equal ones the latest).
    read_only: for evaluation: makes nothing and removes nothing that a running training is about to finish.
  """

  def __init__(self, folder, keep=1, keep_best=False, read_only=False, metric='accuracy'):
    self._metric = metric
    if keep < 1:
      raise ValueError(f'train.keep_checkpoints must be 1 or more, but is {keep}')
    self.folder, self._given = pathlib.Path(folder).absolute(), pathlib.Path(folder)
    if read_only and not self.folder.is_dir():
      raise FileNotFoundError(f'{folder} does not exist: there is no checkpoint to restore')
    policies = ocp.training.preservation_policies
    kept = [policies.LatestN(keep)]
    if keep_best:
      kept.append(
        policies.BestN(get_metric_fn=lambda m: m[metric], n=1, keep_checkpoints_without_metrics=False)
      )
    self._manager = ocp.training.Checkpointer(
      self.folder,
      preservation_policy=policies.AnyPreservationPolicy(kept),
      cleanup_tmp_directories=not read_only,
    )
    self._writing = None
    self._step = None  # that was saved last

  def steps(self):
    """The complete steps, ascending."""
    return [checkpoint.step for checkpoint in self._complete()]

  def latest(self):
    """The newest complete step, or None."""
    return max(self.steps(), default=None)

  def best(self):
    """(step, accuracy) of the one that was saved with the highest accuracy, or None where none was."""
    known = [(c.metrics[self._metric], c.step) for c in self._complete() if c.metrics]
    accuracy, step = max(known, default=(None, None))
    return None if step is None else (step, accuracy)

  def best_value(self):
    """The highest accuracy that a checkpoint was saved with, -inf where none was."""
    best = self.best()
    return -np.inf if best is None else best[1]

  def find(self, which):
    """The step that 'latest', 'best' or a number names.

    Raises:
      ValueError: there is none; the message lists the steps that there are.
    """
    steps = self.steps()
    if not steps:
      raise ValueError(f'{self.folder.parent.name}/{self.folder.name} holds no complete checkpoint')
    if which == 'latest':
      return max(steps)
    if which == 'best':
      found = self.best()
      if found is None:
        raise ValueError('no checkpoint was saved with an accuracy, so none is the best: take latest')
      return found[0]
    if not str(which).isdigit() or int(which) not in steps:
      raise ValueError(f'eval.checkpoint is {which!r}: it must be latest, best or one of the steps {steps}')
    return int(which)

  def _complete(self):
    # orbax writes beside and renames; a folder without its last file is somebody's partial copy of one.
    return [c for c in self._manager.checkpoints if (c.path / '_CHECKPOINT_METADATA').exists()]

  def save(self, step, trees, accuracy=None):
    """Saves {name: tree of arrays} as `step`, in the background. Waits only for the save before.

    The next training step may take the arrays' memory: orbax copies them before this returns.

    Args:
      step: an int.
      trees: {name: tree of arrays}; of several processes all must call this, and the first one writes.
      accuracy: what `best` compares; None where it is not known.

    Raises:
      SaveError: the checkpoint before this one, or this one, could not be written.
    """
    self.wait()
    arrays = {name: _nested(_flat(tree, np.asarray)) for name, tree in trees.items()}
    metrics = None if accuracy is None else {self._metric: float(accuracy)}
    self._step = step
    if jax.process_index() == 0:
      self._check_space(arrays)
    with self._saving():
      self._writing = self._manager.save_checkpointables_async(
        step, arrays, force=True, overwrite=True, metrics=metrics
      )

  def _check_space(self, arrays):
    # orbax notices a full disk too, but buries that in pages of what its threads print.
    size = sum(leaf.nbytes for tree in arrays.values() for leaf in jax.tree.leaves(tree))
    free = shutil.disk_usage(self.folder).free
    if free < size:
      raise SaveError(
        f'checkpoint {self._step} could not be written: {NO_SPACE}: it takes up to {size:,} bytes, '
        f'{free:,} are free'
      )

  def restore(self, step, trees):
    """Reads {name: tree}, in the structure of `trees`, whose leaves tell shape and dtype; numpy arrays.

    Trees that the checkpoint holds beside these are left out.

    Raises:
      ValueError: names, shapes or dtypes differ; the message lists them. Nothing is changed.
    """
    saved = self._manager.checkpointables_metadata(step).metadata
    wanted = {name: _flat(tree, lambda x: np.empty(x.shape, x.dtype)) for name, tree in trees.items()}
    differences = _differences({name: _flat(saved.get(name, {})) for name in wanted}, wanted)
    if differences:
      raise ValueError(f'{self._given / str(step)} is a checkpoint that does not fit: {differences}')
    loaded = self._manager.load_checkpointables(step, {name: _nested(flat) for name, flat in wanted.items()})
    return {name: _like(tree, _flat(loaded[name])) for name, tree in trees.items()}

  def check(self, step, trees):
    pass

  def read(self, step, name):
    """One tree of a step as it was saved, nested dicts of numpy arrays, whatever it holds."""
    saved = _flat(self._manager.checkpointables_metadata(step).metadata[name])
    wanted = _nested({path: np.empty(leaf.shape, leaf.dtype) for path, leaf in saved.items()})
    return self._manager.load_checkpointables(step, {name: wanted})[name]

  def wait(self):
    """Returns when nothing is being written. SaveError tells what went wrong in the background."""
    writing, self._writing = self._writing, None
    if writing is not None:
      with self._saving():
        writing.result()

  def close(self):
    try:
      self.wait()
    except SaveError:
      # What failed, fails again when the manager ends.
      with contextlib.suppress(Exception):
        self._manager.close()
      raise
    with self._saving():
      self._manager.close()

  @contextlib.contextmanager
  def _saving(self):
    try:
      yield
    except Exception as error:  # orbax gives one cause many types: a full disk is a ValueError or an OSError
      text = str(error) or type(error).__name__
      reason = NO_SPACE if NO_SPACE in text else ' '.join(text.split())[:200]
      raise SaveError(f'checkpoint {self._step} could not be written: {reason}') from error

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()


def _flat(tree, convert=lambda x: x):
  """Any tree -> {'a/b/c': leaf}; empty nodes (optax has many) vanish."""
  flat = flax.traverse_util.flatten_dict(flax.serialization.to_state_dict(tree), sep='/')
  return {name: convert(leaf) for name, leaf in flat.items()}


def _nested(flat):
  return flax.traverse_util.unflatten_dict(flat, sep='/')


def _like(tree, flat):
  """The leaves `flat` in the structure of `tree`, empty nodes included."""
  everything = flax.traverse_util.flatten_dict(
    flax.serialization.to_state_dict(tree), keep_empty_nodes=True, sep='/'
  )
  return flax.serialization.from_state_dict(tree, _nested(everything | flat))


def _differences(saved, wanted):
  saved = {f'{tree}/{name}': leaf for tree, leaves in saved.items() for name, leaf in leaves.items()}
  wanted = {f'{tree}/{name}': leaf for tree, leaves in wanted.items() for name, leaf in leaves.items()}
  both = [name for name in wanted if name in saved]
  kinds = {
    'missing in it': [_described(name, wanted[name]) for name in wanted if name not in saved],
    'only in it': [_described(name, saved[name]) for name in saved if name not in wanted],
    'different in it': [
      f'{_described(name, saved[name])} instead of {_described("", wanted[name]).strip()}'
      for name in both
      if (tuple(saved[name].shape), saved[name].dtype) != (wanted[name].shape, wanted[name].dtype)
    ],
  }
  return '; '.join(f'{kind}: {_listed(sorted(names))}' for kind, names in kinds.items() if names)


def _described(name, leaf):
  return f'{name} {tuple(leaf.shape)} {np.dtype(leaf.dtype).name}'


def _listed(names):
  more = f' and {len(names) - LISTED} more' if len(names) > LISTED else ''
  return ', '.join(names[:LISTED]) + more
