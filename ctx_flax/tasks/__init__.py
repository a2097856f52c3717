"""What is learned: a table of tasks by name, resolved when they are needed."""

import pkgutil
from typing import Any

from ctx_flax.nearest import nearest
from ctx_flax.training.task import Task

# config.task -> where the Task lies.
TASKS = {
  'classification': 'ctx_flax.tasks.classification.task:TASK',
  'video': 'ctx_flax.tasks.video.task:TASK',
  'detection': 'ctx_flax.tasks.detection.task:TASK',
}


def check_served(config: Any, what: str, served: tuple[str, ...] = ('classification',)) -> None:
  """Raises ValueError if `what`, such as 'the export', does not serve the task of a config."""
  if config.task not in served:
    raise ValueError(f'{what} serves runs of {", ".join(served)}, but this is one of {config.task}')


def task_of(config: Any) -> Task:
  """The task that config.task names.

  Raises:
    ValueError: TASKS has no such name.
  """
  if config.task not in TASKS:
    raise ValueError(
      f'unknown task {config.task!r}{nearest(config.task, TASKS)}; known: {", ".join(sorted(TASKS))}'
    )
  return pkgutil.resolve_name(TASKS[config.task])
