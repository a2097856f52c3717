"""Checkpoints of a run: atomic, in the background, the newest few and the best kept, checked when restored.

A checkpoint holds named trees ('variables', 'optimizer'), so that a reader may take one of them. No random
keys and no iterators are in it: both follow from the seed and the step.
"""

import contextlib
import errno
import math
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from ctx_flax.training import checkpoint_files

NO_SPACE = os.strerror(errno.ENOSPC)


class SaveError(OSError):
  """A checkpoint could not be written; those before it are as they were."""


class Checkpoints:
  """The checkpoints in a folder, by step. Close it, or use it in a `with`, so that the last one is complete.

  Args:
    folder: made where it does not exist, unless read_only.
    keep: how many of the newest stay when another is saved.
    keep_best: whether the one that was saved with the highest value stays too (of equal ones the latest).
    read_only: for evaluation: makes nothing and removes nothing that a running training is about to finish.
    metric: the name of that value; '' if nothing asks for the best.
  """

  def __init__(
    self,
    folder: str | os.PathLike[str],
    keep: int = 1,
    keep_best: bool = False,
    read_only: bool = False,
    metric: str = '',
  ):
    if keep < 1:
      raise ValueError(f'train.keep_checkpoints must be 1 or more, but is {keep}')
    self.folder, self._given = pathlib.Path(folder).absolute(), pathlib.Path(folder)
    if read_only and not self.folder.is_dir():
      raise FileNotFoundError(f'{folder} does not exist: there is no checkpoint to restore')
    if not read_only:
      self.folder.mkdir(parents=True, exist_ok=True)
    self._keep, self._keep_best, self._metric = keep, keep_best, metric
    self._manager: ocp.training.Checkpointer | None = None  # made when something is saved
    self._writing: Any = None
    self._step = 0  # that was saved last
    self._left_out: set[int] = set()  # set aside: another process may still see them under their old names

  def steps(self) -> list[int]:
    """The complete steps, ascending."""
    # orbax writes beside and renames; a folder without its last file is somebody's partial copy of one.
    return [step for step in self.numbered() if (self.path(step) / checkpoint_files.LAST).exists()]

  def numbered(self) -> list[int]:
    """All steps, ascending, also those that are not complete."""
    found = (int(entry.name) for entry in os.scandir(self.folder) if _is_step(entry.name))
    return sorted(step for step in found if step not in self._left_out)

  def path(self, step: int) -> pathlib.Path:
    """The folder of a step."""
    return self._given / str(step)

  def latest(self) -> int | None:
    """The newest complete step, or None."""
    return max(self.steps(), default=None)

  def best(self) -> tuple[int, float] | None:
    """(step, value) of the one that was saved with the highest value, or None where none was."""
    values = [(self.value(step), step) for step in self.steps()]
    value, step = max(values, default=(-math.inf, 0))
    return None if value == -math.inf else (step, value)

  def value(self, step: int) -> float:
    """The value that a step was saved with, -inf if none. Raises DamagedCheckpoint."""
    return checkpoint_files.metrics(self.path(step)).get(self._metric, -math.inf)

  def best_value(self) -> float:
    """The highest value that a checkpoint was saved with, -inf where none was."""
    best = self.best()
    return -math.inf if best is None else best[1]

  def find(self, which: str | int) -> int:
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
      best = self.best()
      if best is None:
        raise ValueError(f'no checkpoint was saved with its {self._metric}, so none is the best: take latest')
      return best[0]
    if not _is_step(str(which)) or int(which) not in steps:
      raise ValueError(f'eval.checkpoint is {which!r}: it must be latest, best or one of the steps {steps}')
    return int(which)

  def save(self, step: int, trees: Mapping[str, Any], value: float | None = None) -> None:
    """Saves {name: tree of arrays} as `step`, in the background. Waits only for the save before.

    The next training step may take the arrays' memory: orbax copies them before this returns.

    Args:
      step: its number.
      trees: {name: tree of arrays}; of several processes all must call this, and the first one writes.
      value: what `best` compares; None where it is not known.

    Raises:
      SaveError: the checkpoint before this one, or this one, could not be written.
    """
    self.wait()
    arrays = {
      name: checkpoint_files.nested(checkpoint_files.flat(tree, np.asarray)) for name, tree in trees.items()
    }
    metrics = None if value is None or not math.isfinite(value) else {self._metric: float(value)}
    about = None
    self._step = step
    if jax.process_index() == 0:
      self._check_space(arrays)
      about = {checkpoint_files.CHECKSUMS: checkpoint_files.checksums(arrays)}
    with self._saving():
      if self._manager is None:
        self._manager = self._new_manager()
      self._writing = self._manager.save_checkpointables_async(
        step, arrays, force=True, overwrite=True, metrics=metrics, custom_metadata=about
      )
    self._left_out.discard(step)

  def _new_manager(self) -> ocp.training.Checkpointer:
    policies = ocp.training.preservation_policies
    kept: list[Any] = [policies.LatestN(self._keep)]
    if self._keep_best:
      kept.append(
        policies.BestN(
          get_metric_fn=lambda metrics: metrics.get(self._metric, -math.inf),
          n=1,
          keep_checkpoints_without_metrics=False,
        )
      )
    return ocp.training.Checkpointer(
      self.folder, preservation_policy=policies.AnyPreservationPolicy(kept), cleanup_tmp_directories=True
    )

  def _check_space(self, arrays: dict[str, Any]) -> None:
    # orbax notices a full disk too, but buries that in pages of what its threads print.
    size = sum(leaf.nbytes for tree in arrays.values() for leaf in jax.tree.leaves(tree))
    free = shutil.disk_usage(self.folder).free
    if free < size:
      raise SaveError(
        f'checkpoint {self._step} could not be written: {NO_SPACE}: it takes up to {size:,} bytes, '
        f'{free:,} are free'
      )

  def restore(self, step: int, trees: Mapping[str, Any]) -> dict[str, Any]:
    """Reads {name: tree} of a step, in the structure of `trees`, whose leaves tell shape and dtype.

    Raises:
      DamagedCheckpoint, ValueError, OSError: as checkpoint_files.restore. Nothing is changed.
    """
    return checkpoint_files.restore(self.path(step), trees)

  def check(self, step: int, trees: Mapping[str, Any]) -> None:
    """Raises what `restore` does for files that are missing, cut short or do not fit; loads nothing."""
    checkpoint_files.check(self.path(step), trees)

  def read(self, step: int, name: str) -> Any:
    """One tree of a step as it was saved, nested dicts of numpy arrays, whatever it holds."""
    return checkpoint_files.read(self.path(step), name)

  def set_aside(self, step: int) -> pathlib.Path:
    """Renames a damaged checkpoint to damaged-STEP, so that the step can be saved again; returns the path."""
    path, number = self._given / f'damaged-{step}', 1
    while path.exists():
      number += 1
      path = self._given / f'damaged-{step}-{number}'
    if jax.process_index() == 0:
      self.path(step).rename(path)
    self._left_out.add(step)
    return path

  def wait(self) -> None:
    """Returns when nothing is being written. SaveError tells what went wrong in the background."""
    writing, self._writing = self._writing, None
    if writing is not None:
      with self._saving():
        writing.result()

  def close(self) -> None:
    manager, self._manager = self._manager, None
    if manager is None:
      return
    try:
      self.wait()
    except SaveError:
      # What failed, fails again when the manager ends.
      with contextlib.suppress(Exception):
        manager.close()
      raise
    with self._saving():
      manager.close()

  @contextlib.contextmanager
  def _saving(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # orbax gives one cause many types: a full disk is a ValueError or an OSError
      text = str(error) or type(error).__name__
      reason = NO_SPACE if NO_SPACE in text else ' '.join(text.split())[:200]
      raise SaveError(f'checkpoint {self._step} could not be written: {reason}') from error

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def _is_step(name: str) -> bool:
  return name.isascii() and name.isdigit()
