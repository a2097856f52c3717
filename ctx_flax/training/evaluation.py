"""Testing weights on all examples of a source."""

import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ctx_flax.terminal import console
from ctx_flax.training import distributed, over_images, parallel, restore, setup, terms
from ctx_flax.training import step as steps
from ctx_flax.training.feed import BadImages
from ctx_flax.training.halt import bad_data, bad_input, failed_report
from ctx_flax.training.logging import Progress
from ctx_flax.training.task import Evaluator, Task

Results = dict[str, dict[str, float]]


def evaluate(config: Any, workdir: str | os.PathLike[str], task: Task) -> Results:
  """Restores weights, tests them, raw and averaged, and prints what the task says about the results.

  Args:
    config: a config with the task's fields; eval.checkpoint and eval.weights say what is tested. Those of
      the optimizer need not be the run's.
    workdir: the folder of the run; without one, init.weights are tested.
    task: of the config.

  Returns:
    {'raw': {name: float}, 'EMA': {name: float}}, of which eval.weights may leave one out.

  Raises:
    Halt: wrong input, no such checkpoint, one that does not fit the model, or an example that cannot be read
      where that is an error (status 2).
  """
  workdir = pathlib.Path(os.path.expanduser(workdir))
  setup.prepare_jax(config)
  with bad_input():
    source = task.open_source(config, 'test')
    config = task.resolve(config, workdir, source)
    setup.check_settings(config, task)
    model = task.build_model(config, source)
    evaluator = task.evaluator(config, model, source)
    origin, _, variants = restore.restore_variants(config, workdir, task, model)
  eval_step = parallel.pmap_eval_step(steps.make_eval_step(evaluator))
  first = jax.process_index() == 0
  if first:
    for line in getattr(source, 'remarks', ()):
      print(line, flush=True)
  with bad_data(), progress_of(source, active=first) as progress:
    bad = bad_examples(task, source, config, progress.warn)
    tell = teller(progress, source, task)
    results = test(task, evaluator, eval_step, variants, source, config, bad, tell=tell)
  left_out = int(distributed.total([bad.take()])[0])
  if first:
    console().print(task.table(results))
    if left_out:
      print(f'{left_out} of {len(source)} {task.examples} could not be read and {task.unreadable[1]}')
    print(f'{task.headline(results)}; {origin}', flush=True)
  return results


def bad_examples(task: Task, source: Any, config: Any, warn: Callable[[str], Any]) -> BadImages:
  """The BadImages of a source."""
  return BadImages(lambda index: task.describe_bad(source, index, config), warn, task.examples)


def progress_of(source: Any, active: bool = True, stream: Any = None) -> Progress:
  """The display of a test of all examples of a source, of which each process counts its own."""
  return Progress(_own(source), 0, active=active, stream=stream, verb='tested')


def teller(progress: Progress, source: Any, task: Task) -> Callable[[int], None]:
  """A function that shows how many examples have been tested, and the remaining time."""
  began, last = time.monotonic(), _own(source)

  def tell(tested):
    remaining = (time.monotonic() - began) / max(tested, 1) * (last - tested)
    progress.update(tested, task.examples, remaining)

  return tell


def _own(source):
  return -(-len(source) // jax.process_count())


class Interrupted(Exception):
  """A test that was stopped between two batches."""


def test(
  task: Task,
  evaluator: Evaluator,
  eval_step: Callable,
  variants: Mapping[str, Any],
  source: Any,
  config: Any,
  bad: BadImages,
  stop: Callable[[], bool] = lambda: False,
  tell: Callable[[int], Any] = lambda tested: None,
  picture: pathlib.Path | None = None,
) -> Results:
  """The metrics of each of {name: variables} over all examples of a source, which is read once.

  Args:
    task: makes the batches.
    evaluator: of the task.
    eval_step: of it, on all devices.
    variants: {name: variables}.
    source: the examples; what becomes of those that cannot be read, the task says.
    config: uses eval and data.
    bad: is told of these.
    stop: is asked between two batches, at the same point by every process.
    tell: is told after every batch how many examples this process is done with, unreadable ones included.
    picture: where the task may draw what it has seen with the last of the variants.

  Raises:
    Interrupted: stop() said so.
  """
  placed = {name: parallel.replicate(variables) for name, variables in variants.items()}
  sums: dict[str, Any] = {name: {} for name in variants}
  tallies = {name: evaluator.tally(name) for name in variants}
  batches = task.eval_batches(source, config, jax.process_index(), jax.process_count())
  passes = over_images.outputs_of(eval_step, placed, batches, bad, task.unreadable[0], config.data.prefetch)
  try:
    done = 0
    for outputs, batch in passes:
      for name, (batch_sums, rows) in outputs.items():
        sums[name] = terms.add(sums[name], batch_sums)
        if rows:
          tallies[name].add(_examples(parallel.fetch(rows)))
      done += int(((batch['weight'] > 0) | (batch['bad'] >= 0)).sum())
      tell(done)
      if stop():
        raise Interrupted
  finally:
    passes.close()
  results = {name: tally.result(parallel.fetch(sums[name])) for name, tally in tallies.items()}
  if picture is not None and jax.process_index() == 0:
    with failed_report(picture):
      task.draw_tested([*tallies.values()][-1], source, picture, config)
  return results


def _examples(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The rows of a batch without those that only fill it, and without their 'weight'."""
  kept = rows['weight'] > 0
  return {name: value[kept] for name, value in rows.items() if name != 'weight'}
