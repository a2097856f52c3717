"""The modes of every task: what main.py calls with a config and the folder of a run."""

import os
from typing import Any

from ctx_flax.tasks import task_of
from ctx_flax.training import check as checks
from ctx_flax.training import evaluation, loop
from ctx_flax.training.halt import bad_input

Workdir = str | os.PathLike[str]


def train(config: Any, workdir: Workdir) -> dict[str, dict[str, float]]:
  """Trains config.task; see ctx_flax.training.loop.train."""
  with bad_input():
    task = task_of(config)
  return loop.train(config, workdir, task)


def evaluate(config: Any, workdir: Workdir) -> dict[str, dict[str, float]]:
  """Tests the weights of a run, or of config.init.weights; see ctx_flax.training.evaluation.evaluate."""
  with bad_input():
    task = task_of(config)
  return evaluation.evaluate(config, workdir, task)


def check(config: Any, workdir: Workdir) -> dict[str, Any]:
  """Prints what a run would be; see ctx_flax.training.check.check."""
  with bad_input():
    task = task_of(config)
  return checks.check(config, workdir, task)
