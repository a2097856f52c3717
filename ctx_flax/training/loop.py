"""Training of one run, from top to bottom."""

import contextlib
import os
import pathlib
from typing import Any

import jax

from ctx_flax.training import evaluation, parallel, restore, run_folder, setup, starting_point
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.damaged_checkpoints import restore_newest
from ctx_flax.training.halt import bad_data, bad_input, failed_writes
from ctx_flax.training.plan import Plan, make_plan
from ctx_flax.training.run_lock import RunLock
from ctx_flax.training.running import Run
from ctx_flax.training.state import TrainState
from ctx_flax.training.task import Task


def train(config: Any, workdir: str | os.PathLike[str], task: Task) -> evaluation.Results:
  """Trains to the last step, from the newest checkpoint in workdir or from the start; tests and saves.

  Interrupted and started again it computes the same bits as without the interruption, on the same devices.

  Args:
    config: a config with the task's fields.
    workdir: the folder of the run: new, or of this very config. Several processes share it.
    task: what is learned.

  Returns:
    {'raw': {name: float}, 'EMA': {name: float}}, the test metrics after the last step; no EMA if it is off.

  Raises:
    Halt: the input is wrong or another process trains there (status 2; nothing was touched), an example
      cannot be read where that is an error (2), SIGINT or SIGTERM came (128 + its number; the state is
      saved), the loss or the state is not finite or could not be written, or the lock was lost (1; the last
      good checkpoint stays).
  """
  workdir = pathlib.Path(os.path.expanduser(workdir))
  setup.prepare_jax(config)  # before anything asks jax for its devices
  first = jax.process_index() == 0  # the one that writes and tells
  with bad_input():
    plan = make_plan(config, workdir, task)
  run = None
  with contextlib.ExitStack() as stack:
    stack.enter_context(bad_data())
    stack.enter_context(failed_writes(workdir, lambda: run.step if run else 0))
    with bad_input():
      lock = stack.enter_context(RunLock(workdir))
      # Once more: another run may have begun and ended here since.
      run_folder.check(workdir, plan.config, task.identity)
      train_settings = plan.config.train
      checkpoints = stack.enter_context(
        Checkpoints(
          workdir / 'checkpoints', train_settings.keep_checkpoints, train_settings.keep_best, metric=task.best
        )
      )
      start, state, origin = start_state(plan, checkpoints)
      batches = task.train_batches(
        plan.train_source, plan.config, start, jax.process_index(), jax.process_count()
      )
      if first:
        run_folder.claim(workdir, plan.config)
    run = Run(plan, checkpoints, lock, start, parallel.replicate(state))
    run.open(stack)
    run.introduce(origin)
    run.finish_test()
    run.all_steps(batches)
    results = run.last_test()
  if first:
    print(f'{task.headline(results)}; step {plan.last_step}, saved in {workdir}', flush=True)
  return results


def start_state(plan: Plan, checkpoints: Checkpoints) -> tuple[int, TrainState, str]:
  """(step, TrainState, a line about where it is from): the newest checkpoint, init.weights, or random."""
  config, task = plan.config, plan.task
  state = setup.initial_state(config, task, plan.model, plan.tx)
  start, restored = restore_newest(checkpoints, restore.as_trees(state))
  if restored:
    return start, state.replace(**restored['variables'], **restored['optimizer']), f'resumed at step {start}'
  if plan.weights is not None:
    state, taken = starting_point.start_from(config, task, plan.model, plan.weights, state)
    return start, state, taken
  if config.init.pretrained_rate != 1:
    return start, state, 'init.weights is empty: everything starts from random values, at the full rate'
  return start, state, ''
