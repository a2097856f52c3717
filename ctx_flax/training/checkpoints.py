"""Checkpoints of a run: atomic, in the background, the newest few kept, checked against what they restore.

A checkpoint holds named trees ('variables', 'optimizer'), so that a reader may take one of them. No random
keys and no iterators are in it: both follow from the seed and the step.
"""

import pathlib

import flax.serialization
import flax.traverse_util
import numpy as np
from orbax.checkpoint import v1 as ocp

LISTED = 6  # names in an error message, of each kind


class Checkpoints:
  """The checkpoints in a folder, by step. Close it, or use it in a `with`, so that the last one is complete.

  Args:
    folder: made where it does not exist, unless read_only.
    keep: how many of the newest stay when another is saved.
    read_only: for evaluation: makes nothing and removes nothing that a running training is about to finish.
  """

  def __init__(self, folder, keep=1, read_only=False):
    if keep < 1:
      raise ValueError(f'train.keep_checkpoints must be 1 or more, but is {keep}')
    self.folder = pathlib.Path(folder).absolute()
    if read_only and not self.folder.is_dir():
      raise FileNotFoundError(f'{self.folder} does not exist: there is no checkpoint to restore')
    self._manager = ocp.training.Checkpointer(
      self.folder,
      preservation_policy=ocp.training.preservation_policies.LatestN(keep),
      cleanup_tmp_directories=not read_only,
    )
    self._writing = None

  def latest(self):
    """The newest complete step, or None."""
    # orbax writes beside and renames; a folder without its last file is somebody's partial copy of one.
    complete = [c.step for c in self._manager.checkpoints if (c.path / '_CHECKPOINT_METADATA').exists()]
    return max(complete, default=None)

  def save(self, step, trees):
    """Saves {name: tree of arrays} as `step`, in the background. Waits only for the save before.

    The next training step may take the arrays' memory: orbax copies them before this returns.
    """
    self.wait()
    arrays = {name: _nested(_flat(tree, np.asarray)) for name, tree in trees.items()}
    self._writing = self._manager.save_checkpointables_async(step, arrays, force=True, overwrite=True)

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
      raise ValueError(f'{self.folder / str(step)} is a checkpoint that does not fit: {differences}')
    loaded = self._manager.load_checkpointables(step, {name: _nested(flat) for name, flat in wanted.items()})
    return {name: _like(tree, _flat(loaded[name])) for name, tree in trees.items()}

  def wait(self):
    """Returns when nothing is being written; raises what went wrong in the background."""
    if self._writing is not None:
      self._writing.result()
      self._writing = None

  def close(self):
    self.wait()
    self._manager.close()

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
