"""A run that is going on: its steps, tests, saves and logs, and how it stops."""

import contextlib
import dataclasses
import functools
import signal
import time
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np

from ctx_flax.training import distributed, evaluation, parallel, pending_test, restore
from ctx_flax.training import step as steps
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.feed import BadImages, Clock, Feed
from ctx_flax.training.halt import Halt, stopping_signal
from ctx_flax.training.logging import Progress
from ctx_flax.training.metric_log import MetricLog
from ctx_flax.training.plan import Plan
from ctx_flax.training.profile import Profile
from ctx_flax.training.run_lock import RunLock
from ctx_flax.training.step_metrics import fetch_metrics, in_short


@dataclasses.dataclass
class Run:
  """A run that is going on: what its steps share.

  Attributes:
    plan: what it was made from.
    checkpoints: where it is saved.
    lock: of its folder.
    start: the step at which it goes on.
    state: on the devices.
  """

  plan: Plan
  checkpoints: Checkpoints
  lock: RunLock
  start: int
  state: Any

  def __post_init__(self):
    plan = self.plan
    self.step = self.start
    self.results: evaluation.Results = {}
    self.train_step = parallel.pmap_train_step(plan.step_function)
    self.eval_step = parallel.pmap_eval_step(steps.make_eval_step(plan.evaluator))
    self.skipped_in_a_row = 0
    self.saved = time.monotonic()
    self.best = self.checkpoints.best_value() if plan.config.train.keep_best else np.inf

  def open(self, stack: contextlib.ExitStack) -> None:
    """Opens the log, the progress display, the profile and the handlers of signals."""
    plan, first = self.plan, jax.process_index() == 0
    # The line of a test that is owed is there already if the run was killed right after it was written.
    owed = pending_test.read(plan.workdir, self.start) is not None
    self.log = stack.enter_context(MetricLog(plan.workdir, self.start - owed, active=first))
    self.progress = stack.enter_context(Progress(plan.last_step, self.start, active=first))
    self.profile = stack.enter_context(
      Profile(plan.workdir / 'profile', self.start, active=plan.config.profile and first)
    )
    self.received = stack.enter_context(stopping_signal())
    describe = functools.partial(plan.task.describe_bad, plan.train_source, config=plan.config)
    self.bad = BadImages(describe, self.progress.warn, plan.task.examples)
    self.bad_tests = evaluation.bad_examples(plan.task, plan.test_source, plan.config, self.progress.warn)

  def introduce(self, origin: str) -> None:
    """Says what is trained, on what, and where it starts."""
    plan, devices = self.plan, jax.device_count()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(plan.state.params))
    for line in plan.task.remarks(plan.train_source, plan.test_source):
      self.progress.note(line)
    self.progress.note(
      f'{plan.config.model.name}, {parameters:,} parameters, {devices} '
      f'{"device" if devices == 1 else "devices"}: {plan.workdir}'
    )
    if origin:
      self.progress.note(origin)

  def all_steps(self, batches: Any) -> None:
    """Runs the steps that are left."""
    plan = self.plan
    config, last = plan.config, plan.last_step
    place = Placement(self._draw())
    pending: list[Any] = []  # terms of the steps since the last look, still on the device
    with contextlib.closing(Feed(batches, place, config.data.prefetch)) as feed:
      clock = Clock(feed, config.train.batch_size, last - self.start, plan.task.examples)
      for step in range(self.start + 1, last + 1):
        self.step = step
        self.profile.before(step)
        batch, unreadable = next(feed)
        self.bad.add(unreadable, 'replaced by the next one')
        self.state, of_step = self.train_step(self.state, batch)
        pending.append(of_step)
        self.profile.after(step, of_step)
        clock.tick()
        if step == self.start + 1:
          jax.block_until_ready(of_step)
          clock.resume()
        # Several processes can agree to stop only where all of them ask one another.
        if self._looks(step) or (self.received and jax.process_count() == 1):
          self._look(pending, clock)
          pending = []
          clock.resume()

  def _looks(self, step: int) -> bool:
    """True if the step is logged, tested or saved."""
    train = self.plan.config.train
    every = train.eval_every, train.checkpoint_every, train.log_every
    return any(due(step, interval, self.plan.last_step) for interval in every)

  def _look(self, pending: list[Any], clock: Clock) -> None:
    """Waits for the devices; logs, tests, saves and stops as is due at the step."""
    plan, step = self.plan, self.step
    train = plan.config.train
    values, self.skipped_in_a_row = fetch_metrics(
      pending, step, plan.objective.weights, self.skipped_in_a_row
    )
    overdue = 0 < 60 * train.checkpoint_minutes < time.monotonic() - self.saved
    stop, overdue, bad = distributed.total(
      [bool(self.received), jax.process_index() == 0 and overdue, self.bad.take()]
    )
    line = {'epoch': step / plan.steps_per_epoch, 'learning_rate': float(plan.schedule(step - 1))}
    line |= clock.look() | {f'data/bad_{plan.task.examples}': float(bad)}
    line |= {f'train/{name}': value for name, value in values.items()}
    to_save = due(step, train.checkpoint_every, plan.last_step) or overdue
    if not due(step, train.eval_every, plan.last_step):
      self.lock.check()
      self.log.write(step, line)
      if to_save or stop:
        self.save()
    elif stop:
      self._postpone_test(line)
    else:
      self._test_and_log(line, to_save)
    self.progress.update(step, in_short(line, plan.task), clock.remaining())
    if stop:
      self._stop()

  def finish_test(self) -> None:
    """Does the test of the step at which the run goes on, if it was stopped before or in it."""
    line = pending_test.read(self.plan.workdir, self.start)
    if line is not None:
      self._test_and_log(line, to_save=True)
      if jax.process_index() == 0:
        pending_test.remove(self.plan.workdir)

  def _test_and_log(self, line: dict[str, float], to_save: bool) -> None:
    step, last = self.step, self.plan.last_step
    try:
      results = self.test()
    except evaluation.Interrupted:
      self._postpone_test(line)
      self._stop()
    line[f'data/bad_test_{self.plan.task.examples}'] = float(distributed.total([self.bad_tests.take()])[0])
    for variant, measured in results.items():
      line |= {f'test/{variant}/{name}': value for name, value in measured.items()}
    value = results.get('EMA', results['raw'])[self.plan.task.best]
    if step < last:
      self.progress.note(f'step {step}: {self.plan.task.headline(results)}')
    self.lock.check()
    self.log.write(step, line)
    if to_save or value > self.best:
      self.save(value)
    self.best = max(self.best, value)
    self.results = results if step == last else {}

  def _postpone_test(self, line: dict[str, float]) -> None:
    """Saves the step without its test, which the resumed run does first."""
    self.lock.check()
    self.save()
    if jax.process_index() == 0:
      pending_test.write(self.plan.workdir, self.step, line)

  def _stop(self) -> NoReturn:
    self.checkpoints.wait()
    # Without one of its own, this process stops for another's.
    number = self.received[0] if self.received else signal.SIGTERM
    raise Halt(
      f'stopped by {number.name} at step {self.step}, saved in {self.plan.workdir}: the same command goes on '
      'there',
      128 + number,
    )

  def last_test(self) -> evaluation.Results:
    """The metrics after the last step, from the test that was done then, or from another one."""
    if self.results:
      return self.results
    try:
      return self.test()
    except evaluation.Interrupted:
      self._stop()

  def test(self) -> evaluation.Results:
    """The metrics of the weights as they are; evaluation.Interrupted if a signal came."""
    state, plan = self.state, self.plan
    return evaluation.test(
      plan.task,
      plan.evaluator,
      self.eval_step,
      restore.variants_of(state.variables, state.ema),
      plan.test_source,
      plan.config,
      self.bad_tests,
      stop=lambda: distributed.total([bool(self.received)])[0] > 0,
      tell=lambda tested: self.progress.within(f'step {self.step}: {tested:,} {plan.task.examples} tested'),
      picture=plan.workdir / 'tested.png',
    )

  def save(self, value: float | None = None) -> None:
    """Saves the state, with the metric that the best is kept by; Halt if it is not finite."""
    trees = parallel.fetch(restore.as_trees(self.state))
    for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
      if not np.all(np.isfinite(leaf)):
        raise Halt(f'after step {self.step} {jax.tree_util.keystr(path)} is not finite and was not saved', 1)
    self.checkpoints.save(self.step, trees, value)
    self.saved = time.monotonic()

  def _draw(self) -> Callable[[Any], None] | None:
    """What draws the first batch of a new run."""
    plan = self.plan
    path = plan.workdir / 'augmented.png'
    if jax.process_index() or self.start or path.exists():
      return None
    return lambda batch: plan.task.draw(batch, plan.train_source, path, plan.config)


class Placement:
  """Sends batches to the devices, and draws the first one: batch -> (on the devices, unreadable indices)."""

  def __init__(self, draw: Callable[[Any], None] | None = None):
    self._draw = draw

  def __call__(self, batch: dict[str, Any]) -> tuple[Any, np.ndarray]:
    unreadable = batch.pop('bad')
    unreadable = unreadable[unreadable >= 0]  # in the thread that feeds: hardly ever any are left
    if self._draw:
      self._draw(batch)
      self._draw = None
    return parallel.place_batch(batch), unreadable


def due(step: int, every: int, last: int) -> bool:
  """True every `every` steps (0: never) and at the last step."""
  return step == last or (every > 0 and step % every == 0)
