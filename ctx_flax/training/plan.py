"""All that a run needs, derived from its config: what refuses a run is raised here, before anything runs."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import optax

from ctx_flax.training import optimizer, restore, run_folder, setup, starting_point
from ctx_flax.training import step as steps
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.damaged_checkpoints import newest_whole
from ctx_flax.training.state import TrainState
from ctx_flax.training.task import Evaluator, Objective, Task


@dataclasses.dataclass(frozen=True)
class Plan:
  """A run that has not started.

  Attributes:
    config: with what it left open resolved.
    task: of the config.
    workdir: the folder of the run.
    train_source, test_source: the examples.
    model: the network.
    objective, evaluator: of the task.
    tx: the optimizer.
    schedule: step -> learning rate.
    steps_per_epoch: optimizer steps in one pass over the training examples.
    last_step: of the run.
    step_function: (state, batch) -> (state, terms), for training/parallel.py.
    state: the TrainState at step 0 as shapes and dtypes.
    weights: what init.weights holds, if a new run starts from them, else None.
  """

  config: Any
  task: Task
  workdir: pathlib.Path
  train_source: Any
  test_source: Any
  model: Any
  objective: Objective
  evaluator: Evaluator
  tx: optax.GradientTransformation
  schedule: Callable[[Any], Any]
  steps_per_epoch: float
  last_step: int
  step_function: Callable
  state: TrainState
  weights: restore.Weights | None


def make_plan(config: Any, workdir: pathlib.Path, task: Task, thorough: bool = False) -> Plan:
  """The Plan of a config; writes nothing and computes nothing.

  Args:
    config: a config with the task's fields.
    workdir: the folder that the run has or would have.
    task: of the config.
    thorough: whether to compare the newest checkpoint's arrays with their checksums, as restoring does.

  Raises:
    ValueError, OSError, ImportError: the config, the data, the folder, its newest checkpoint or init.weights
      refuse the run.
  """
  train_source = task.open_source(config, 'train')
  config = task.resolve(config, workdir, train_source)
  run_folder.check(workdir, config, task.identity)
  test_source = task.open_source(config, 'test')
  setup.check_settings(config, task)
  task.check_sources(train_source, test_source)
  steps_per_epoch = len(train_source) / config.train.batch_size
  schedule = optimizer.learning_rate_schedule(config, steps_per_epoch)
  last_step = optimizer.total_steps(config, steps_per_epoch)
  model = task.build_model(config, train_source)
  factor = starting_point.rate_factor(config, task.fresh(config), model)
  tx = optimizer.make_optimizer(config, schedule, factor, model)
  objective = task.objective(config, model, last_step)
  step_function = steps.make_train_step(objective, tx, config)
  state = jax.eval_shape(lambda: setup.initial_state(config, task, model, tx))
  setup.check_memory(config, state)
  starting_point.check_freeze(config, state.params)
  weights = None
  if not check_newest(config, workdir, task, state, thorough) and config.init.weights:
    weights = restore.read_weights(config.init.weights)
    starting_point.initial_variables(config, task, model, weights, state.variables)
  return Plan(
    config,
    task,
    workdir,
    train_source,
    test_source,
    model,
    objective,
    task.evaluator(config, model, test_source),
    tx,
    schedule,
    steps_per_epoch,
    last_step,
    step_function,
    state,
    weights,
  )


def check_newest(config: Any, workdir: pathlib.Path, task: Task, state: TrainState, thorough: bool) -> bool:
  """Whether workdir holds a checkpoint to go on from; see `make_plan` for what it raises."""
  folder = workdir / 'checkpoints'
  if not folder.is_dir():
    return False
  trees = restore.as_trees(state)
  with Checkpoints(folder, read_only=True, metric=task.best) as checkpoints:
    examine = checkpoints.restore if thorough else checkpoints.check
    return newest_whole(checkpoints, lambda step: examine(step, trees)) > 0
