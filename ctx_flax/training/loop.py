"""Training of one run, from top to bottom."""

import contextlib
import functools
import pathlib
import signal
import time

import jax
import numpy as np

from ctx_flax.data import image_grid, pipeline, sources
from ctx_flax.training import (
  distributed,
  evaluation,
  metrics,
  optimizer,
  parallel,
  run_folder,
  setup,
  starting_point,
)
from ctx_flax.training import step as steps
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.damaged_checkpoints import restore_newest
from ctx_flax.training.evaluation import accuracies, as_trees, weights_of
from ctx_flax.training.feed import BadImages, Clock, Feed
from ctx_flax.training.halt import Halt, bad_data, bad_input, failed_writes, stopping_signal
from ctx_flax.training.logging import Progress
from ctx_flax.training.metric_log import MetricLog
from ctx_flax.training.profile import Profile
from ctx_flax.training.run_lock import RunLock

GRID = 64  # images of the picture of augmented ones
MANY_SKIPPED = 50  # steps in a row without a finite loss and gradient are no accident


def train(config, workdir):
  """Trains to the last step, from the newest checkpoint in workdir or from the start; evaluates and saves.

  Interrupted and started again it computes the same bits as without the interruption, on the same devices.

  Args:
    config: a config with the fields of configs/default.py.
    workdir: the folder of the run: new, or of this very config. Several processes share it.

  Returns:
    {'raw': {name: float}, 'EMA': {name: float}}, the test metrics after the last step; no EMA where
    it is off.

  Raises:
    Halt: the input is wrong or another process trains there (status 2; nothing was touched), an image cannot
      be read where that is an error (2), SIGINT or SIGTERM came (128 + its number; the state is saved), the
      loss or the state is not finite or could not be written, or the lock was lost (1; the last good
      checkpoint stays).
  """
  with contextlib.ExitStack() as held:
    return _train(config, pathlib.Path(workdir), held)


def _train(config, workdir, held):
  setup.prepare_jax(config)  # before anything asks jax for its devices
  process, processes = jax.process_index(), jax.process_count()
  first = process == 0  # the one that writes and tells
  with bad_input():
    train_source = sources.open_source(config.data, 'train')
    config = starting_point.with_class_counts(config, workdir, train_source.num_classes)
    run_folder.check(workdir, config)
    test_source = sources.open_source(config.data, 'test')
    setup.check_settings(config)
    per_epoch = len(train_source) / config.train.batch_size
    schedule = optimizer.learning_rate_schedule(config, per_epoch)
    last = optimizer.total_steps(config, per_epoch)
    tx = optimizer.make_optimizer(config, schedule, starting_point.rate_factor(config))
    model = setup.build_model(config, train_source)
    setup.check_classes(train_source, test_source)
    step_function = steps.make_train_step(
      model, tx, config, total_steps=last, freeze_norm=config.init.freeze_norm
    )
    state = setup.initial_state(config, model, tx)
    starting_point.check_freeze(config, state.params)
    lock = held.enter_context(RunLock(workdir))
    run_folder.check(workdir, config)  # once more: another run may have begun and ended here since
    checkpoints = Checkpoints(workdir / 'checkpoints', config.train.keep_checkpoints, config.train.keep_best)
    start, restored = restore_newest(checkpoints, as_trees(state))
    if restored:
      state = state.replace(**restored['variables'], **restored['optimizer'])
    elif config.init.weights:
      state, taken = starting_point.start_from(config, model, state)
    batches = pipeline.train_batches(train_source, config, start, process, processes)
    if first:
      run_folder.claim(workdir, config)

  state = parallel.replicate(state)
  train_step = parallel.pmap_train_step(step_function)
  eval_step = parallel.pmap_eval_step(steps.make_eval_step(model))
  results = {}
  step, skipped_in_a_row = start, 0
  pending = []  # metrics of the steps since the last look, still on the device
  with (
    bad_data(),
    failed_writes(workdir, lambda: step),
    checkpoints,
    MetricLog(workdir, start, active=first) as log,
    Progress(last, start, active=first) as progress,
    Profile(workdir / 'profile', start, active=config.profile and first) as profile,
    stopping_signal() as received,
  ):
    devices = 'device' if jax.device_count() == 1 else 'devices'
    progress.note(
      f'{config.model.name}, {count(state.params):,} parameters, {jax.device_count()} {devices}: {workdir}'
    )
    if start:
      progress.note(f'resumed at step {start}')
    elif config.init.weights:
      progress.note(taken)
    elif config.init.pretrained_rate != 1:
      progress.note('init.weights is empty: everything starts from random values, at the full rate')
    bad = BadImages(functools.partial(pipeline.describe_bad, train_source, config=config), progress.warn)
    bad_tests = evaluation.bad_test_images(test_source, config, progress.warn)
    samples = workdir / 'augmented.png' if first and not start else None
    place = functools.partial(place_batch, samples=samples, source=train_source, config=config)
    best = checkpoints.best_value() if config.train.keep_best else np.inf
    with contextlib.closing(Feed(batches, place, config.data.prefetch)) as feed:
      clock = Clock(feed, config.train.batch_size, last - start)
      saved = time.monotonic()
      for step in range(start + 1, last + 1):
        profile.before(step)
        batch, unreadable = next(feed)
        bad.add(unreadable, 'replaced by the next one')
        state, of_step = train_step(state, batch)
        pending.append(of_step)
        profile.after(step, of_step)
        clock.tick()
        if step == start + 1:
          jax.block_until_ready(of_step)
          clock.resume()

        to_evaluate = due(step, config.train.eval_every, last)
        to_save = due(step, config.train.checkpoint_every, last)
        to_log = to_evaluate or to_save or due(step, config.train.log_every, last)
        # Several processes can agree to stop only where all of them ask one another.
        if not to_log and (processes > 1 or not received):
          continue

        # The loop waits for the device only from here on.
        values, skipped_in_a_row = fetch_metrics(pending, step, config.loss.alpha, skipped_in_a_row)
        pending = []
        overdue = 0 < 60 * config.train.checkpoint_minutes < time.monotonic() - saved
        stop, overdue, bad_images = distributed.total([bool(received), first and overdue, bad.take()])
        line = {'epoch': step / per_epoch, 'learning_rate': float(schedule(step - 1))}
        line |= clock.look() | {'data/bad_images': float(bad_images)}
        line |= {f'train/{name}': value for name, value in values.items()}
        accuracy = None
        if to_evaluate:
          results = evaluation.test(weights_of(state), eval_step, test_source, config, bad_tests)
          line['data/bad_test_images'] = float(distributed.total([bad_tests.take()])[0])
          for weights, measured in results.items():
            line |= {f'test/{weights}/{name}': value for name, value in measured.items()}
          accuracy = results.get('EMA', results['raw'])['accuracy']
          if step < last:
            progress.note(f'step {step}: {accuracies(results)}')
        lock.check()
        log.write(step, line)
        if to_save or stop or overdue or (accuracy is not None and accuracy > best):
          save(checkpoints, state, step, accuracy)
          saved = time.monotonic()
        if accuracy is not None:
          best = max(best, accuracy)
        progress.update(step, in_short(line), clock.remaining())
        clock.resume()
        if stop and step < last:
          checkpoints.wait()
          # Without one of its own, this process stops for another's.
          number = received[0] if received else signal.SIGTERM
          reason = (
            f'stopped by {number.name} at step {step}, saved in {workdir}: the same command goes on there'
          )
          raise Halt(reason, 128 + number)

    if not results:  # all steps had been done before
      results = evaluation.test(weights_of(state), eval_step, test_source, config, bad_tests)
  if first:
    print(f'{accuracies(results)}; step {last}, saved in {workdir}', flush=True)
  return results


def place_batch(batch, samples, source, config):
  """Sends a batch to the devices, and draws it if it is a run's first.

  Returns:
    (the batch on the devices, the indices of its unreadable images).
  """
  unreadable = batch.pop('bad')
  unreadable = unreadable[unreadable >= 0]  # here, in the thread that feeds: hardly ever any are left
  if samples and not samples.exists():
    captions = image_grid.captions(batch, source.class_names)[:GRID]
    image_grid.save_image_grid(batch['image'][:GRID], samples, config.data.mean, config.data.std, captions)
  return parallel.place_batch(batch), unreadable


def fetch_metrics(pending, step, alpha, skipped_in_a_row=0):
  """Sums up the metrics of the steps up to `step`, on the host.

  Returns:
    {name: float}, where steps may be skipped with 'skipped', how many were; and how many steps up to this
    one were skipped one after the other, `skipped_in_a_row` of them before these.

  Raises:
    Halt: naming the first step whose loss is not finite, or when MANY_SKIPPED were skipped in a row.
  """
  pending = parallel.fetch(pending)
  total: dict = {}
  for number, of_step in enumerate(pending, step - len(pending) + 1):
    if not np.isfinite(metrics.summarise(of_step, alpha)['loss']):
      raise Halt(
        f'the loss of step {number} is not finite; the checkpoints are of steps before it. '
        'Try a lower optimizer.learning_rate, a longer warm-up or optimizer.clip_norm=1',
        1,
      )
    skipped = 'skipped' in of_step and of_step['skipped'][0] > 0
    skipped_in_a_row = skipped_in_a_row + 1 if skipped else 0
    if skipped_in_a_row == MANY_SKIPPED:
      raise Halt(
        f'every step from {number - MANY_SKIPPED + 1} to {number} was skipped: none had a finite loss and '
        'gradient. The weights are those of the step before them; try a lower optimizer.learning_rate',
        1,
      )
    total = metrics.add(total, of_step)
  values = metrics.summarise(total, alpha)
  if 'skipped' in total:
    values['skipped'] = float(total['skipped'][0])
  return values, skipped_in_a_row


def save(checkpoints, state, step, accuracy=None):
  """Saves the state as `step`; Halt if it is not finite: no such one ever takes the place of a good one."""
  trees = parallel.fetch(as_trees(state))
  for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
    if not np.all(np.isfinite(leaf)):
      raise Halt(f'after step {step} {jax.tree_util.keystr(path)} is not finite and was not saved', 1)
  checkpoints.save(step, trees, accuracy)


def due(step, every, last):
  """Whether something that happens every so many steps (0: never) and after the last one happens now."""
  return step == last or (every > 0 and step % every == 0)


def in_short(line):
  """What the progress display says of a line of metrics."""
  skipped = f'  {line["train/skipped"]:.0f} skipped' if line.get('train/skipped') else ''
  return (
    f'loss {line["train/loss"]:.3f}  train accuracy {100 * line["train/accuracy"]:.1f} %{skipped}  '
    f'{line["images_per_second"]:.0f} images/s  {100 * line["data/wait_share"]:.0f} % waiting for data'
  )


def count(params):
  """The number of parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))
