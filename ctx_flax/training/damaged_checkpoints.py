"""What to do about a checkpoint that is damaged: go on from the newest that is not, or name that one."""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

from ctx_flax.files import shell_word
from ctx_flax.training import distributed
from ctx_flax.training.checkpoint_files import DamagedCheckpoint
from ctx_flax.training.checkpoints import Checkpoints

Result = TypeVar('Result')


def restore_newest(
  checkpoints: Checkpoints, trees: Mapping[str, Any], warn: Callable[[str], object] = print
) -> tuple[int, dict[str, Any] | None]:
  """Restores the newest checkpoint that is not damaged, to go on from there.

  Damaged ones are set aside, the best too, so that another one becomes it; nothing is deleted. Of several
  processes all must call this: a checkpoint that one of them cannot restore is damaged.

  Args:
    checkpoints: those of a run whose folder this process, or the first one of the run, has locked.
    trees: as for `Checkpoints.restore`.
    warn: is told in one line of each damaged checkpoint, in the first process.

  Returns:
    (step, {name: tree}), or (0, None) if the folder holds no checkpoint.

  Raises:
    ValueError: all are damaged, or the newest other one does not fit. Nothing is changed.
    OSError: one cannot be read. Nothing is changed.
    Halt: the processes see different checkpoints.
  """
  steps = checkpoints.numbered()
  distributed.check_same('newest checkpoint', max(steps, default=0))
  damaged: dict[int, str] = {}

  def read(step: int, action: Callable[[int], Result]) -> Result | None:
    """What `action` reads of a checkpoint; None, and a reason in `damaged`, if a process cannot."""
    result = None
    try:
      result = action(step)
    except DamagedCheckpoint as error:
      damaged[step] = error.reason
    if distributed.total([step in damaged])[0]:
      damaged.setdefault(step, 'another process of the run cannot restore it')
      return None
    return result

  start, restored, values = 0, None, {}
  for step in reversed(steps):
    if restored is None:
      both = read(step, lambda step: (checkpoints.restore(step, trees), checkpoints.value(step)))
      if both is not None:
        start, (restored, values[step]) = step, both
    else:
      value = read(step, checkpoints.value)  # orbax reads those of all when it saves
      if value is not None:
        values[step] = value
  # The best is wanted at the end of the run, when it is too late to keep another one.
  for step in sorted(values, key=lambda step: (values[step], step), reverse=True):
    if step == start or values[step] == -math.inf:
      break
    if read(step, lambda step: checkpoints.restore(step, trees)) is not None:
      break
  if steps and restored is None:
    raise all_damaged(checkpoints, damaged)
  for step, reason in damaged.items():
    path = checkpoints.set_aside(step)
    if jax.process_index() == 0:
      warn(f'checkpoint {step} is damaged ({reason}) and was renamed to {path}; going on from step {start}')
  if damaged:
    distributed.total([0])  # nobody goes on before they are renamed
  return start, restored


def newest_whole(checkpoints: Checkpoints, examine: Callable[[int], object]) -> int:
  """The newest step that `examine` does not find damaged, 0 if there is no checkpoint. Changes nothing.

  Raises:
    ValueError: all are damaged; or what else `examine` raises.
  """
  damaged: dict[int, str] = {}
  for step in reversed(checkpoints.numbered()):
    try:
      examine(step)
      return step
    except DamagedCheckpoint as error:
      damaged[step] = error.reason
  if damaged:
    raise all_damaged(checkpoints, damaged)
  return 0


def all_damaged(checkpoints: Checkpoints, damaged: Mapping[int, str]) -> ValueError:
  """The error of a run that has checkpoints and can go on from none, {step: reason}."""
  reasons = '; '.join(f'{step}: {reason}' for step, reason in damaged.items())
  return ValueError(
    f'no checkpoint in {checkpoints.folder} can be restored ({reasons}): take another --workdir'
  )


def chosen(
  checkpoints: Checkpoints,
  which: str | int,
  read: Callable[[int], Result],
  option: str = '--config.eval.checkpoint=',
) -> tuple[int, Result]:
  """(step, read(step)) of the step that `which` names, see `Checkpoints.find`. Changes nothing.

  Raises:
    DamagedCheckpoint: it is damaged; the message names the newest that is not, behind `option`.
  """
  try:
    step = checkpoints.find(which)
    return step, read(step)
  except DamagedCheckpoint as error:
    advice = '; no other one can be restored either'
    for other in reversed(checkpoints.steps()):
      with contextlib.suppress(DamagedCheckpoint):
        read(other)
        advice = f'; the newest that is whole is {other}: {shell_word(f"{option}{other}")}'
        break
    raise DamagedCheckpoint(error.folder, error.reason, advice) from error
