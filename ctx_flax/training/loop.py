"""Training and evaluation of one run, from top to bottom."""

import contextlib
import pathlib
import time

import jax
import numpy as np
import rich

from ctx_flax.data import pipeline, sources
from ctx_flax.training import metrics, optimizer, parallel, run_folder, setup
from ctx_flax.training import step as steps
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.halt import Halt, bad_input, stopping_signal
from ctx_flax.training.logging import MetricLog, Progress, percent_by_stage, results_table


def train(config, workdir):
  """Trains to the last step, from the newest checkpoint in workdir or from the start; evaluates and saves.

  Interrupted and started again it computes the same bits as without the interruption, on the same devices.

  Args:
    config: a config with the fields of configs/default.py.
    workdir: the folder of the run: new, or of this very config.

  Returns:
    {'raw': {name: float}, 'EMA': {name: float}}, the test metrics after the last step; no EMA where
    it is off.

  Raises:
    Halt: the input is wrong (status 2; nothing was touched), SIGINT or SIGTERM came (128 + its number; the
      state is saved), or the loss or the state is not finite (1; the last good checkpoint stays).
  """
  workdir = pathlib.Path(workdir)
  with bad_input():
    run_folder.check(workdir, config)
    setup.use_compilation_cache(config)
    train_source = sources.open_source(config.data, 'train')
    test_source = sources.open_source(config.data, 'test')
    setup.check_settings(config)
    per_epoch = len(train_source) / config.train.batch_size
    schedule = optimizer.learning_rate_schedule(config, per_epoch)
    last = optimizer.total_steps(config, per_epoch)
    tx = optimizer.make_optimizer(config, schedule)
    model = setup.build_model(config, train_source)
    state = setup.initial_state(config, model, tx)
    checkpoints = Checkpoints(workdir / 'checkpoints', config.train.keep_checkpoints)
    start = checkpoints.latest() or 0
    if start:
      restored = checkpoints.restore(start, as_trees(state))
      state = state.replace(**restored['variables'], **restored['optimizer'])
    batches = pipeline.train_batches(train_source, config, start)
    run_folder.claim(workdir, config)

  state = parallel.replicate(state)
  train_step = parallel.pmap_train_step(steps.make_train_step(model, tx, config))
  eval_step = parallel.pmap_eval_step(steps.make_eval_step(model))
  results = {}
  pending = []  # metrics of the steps since the last look, still on the device
  with (
    checkpoints,
    MetricLog(workdir, start) as log,
    Progress(last, start) as progress,
    contextlib.closing(batches),
    stopping_signal() as received,
  ):
    progress.note(
      f'{config.model.name}, {count(state.params):,} parameters, {jax.device_count()} devices: {workdir}'
    )
    if start:
      progress.note(f'resumed at step {start}')
    began = looked = time.perf_counter()
    for step in range(start + 1, last + 1):
      state, of_step = train_step(state, parallel.shard_batch(next(batches)))
      pending.append(of_step)
      if step == start + 1:
        jax.block_until_ready(of_step)  # the one step whose time is the compiler's
        began = looked = time.perf_counter()

      stop = bool(received)
      to_evaluate = due(step, config.train.eval_every, last)
      to_save = stop or due(step, config.train.checkpoint_every, last)
      if not (to_evaluate or to_save or due(step, config.train.log_every, last)):
        continue

      # The loop waits for the device only from here on.
      values = fetch_metrics(pending, step, config.loss.alpha)
      now = time.perf_counter()
      steps_timed = len(pending) - (step - len(pending) == start)
      speed = steps_timed * config.train.batch_size / max(now - looked, 1e-9)
      pending = []
      line = {
        'epoch': step / per_epoch,
        'learning_rate': float(schedule(step - 1)),
        'images_per_second': speed,
      }
      line |= {f'train/{name}': value for name, value in values.items()}
      if to_evaluate:
        results = evaluate_state(state, eval_step, test_source, config)
        for weights, measured in results.items():
          line |= {f'test/{weights}/{name}': value for name, value in measured.items()}
        if step < last:
          progress.note(f'step {step}: {accuracies(results)}')
      log.write(step, line)
      if to_save:
        save(checkpoints, state, step)
      remaining = (last - step) * (time.perf_counter() - began) / max(step - start - 1, 1)
      text = (
        f'loss {values["loss"]:.3f}  train accuracy {100 * values["accuracy"]:.1f} %  {speed:.0f} images/s'
      )
      progress.update(step, text, remaining)
      looked = time.perf_counter()
      if stop and step < last:
        checkpoints.wait()
        reason = (
          f'stopped by {received[0].name} at step {step}, saved in {workdir}: the same command goes on there'
        )
        raise Halt(reason, 128 + received[0])

    if not results:  # all steps had been done before
      results = evaluate_state(state, eval_step, test_source, config)
  print(f'{accuracies(results)}; step {last}, saved in {workdir}', flush=True)
  return results


def evaluate(config, workdir):
  """Restores the newest checkpoint in workdir, tests raw and averaged weights and prints a table.

  Args and the return value are those of `train`; the optimizer's fields need not be those of the run.

  Raises:
    Halt: wrong input, no checkpoint, or one that does not fit the model (status 2).
  """
  workdir = pathlib.Path(workdir)
  with bad_input():
    setup.use_compilation_cache(config)
    test_source = sources.open_source(config.data, 'test')
    setup.check_settings(config)
    model = setup.build_model(config, test_source)
    with Checkpoints(workdir / 'checkpoints', read_only=True) as checkpoints:
      step = checkpoints.latest()
      if step is None:
        raise ValueError(f'{workdir} holds no complete checkpoint')
      tx = optimizer.make_optimizer(config, config.optimizer.learning_rate)
      state = jax.eval_shape(lambda: setup.initial_state(config, model, tx))
      variables = checkpoints.restore(step, {'variables': as_trees(state)['variables']})['variables']
  eval_step = parallel.pmap_eval_step(steps.make_eval_step(model))
  results = evaluate_state(state.replace(**variables), eval_step, test_source, config)
  rich.print(results_table(results))
  print(f'{accuracies(results)}; step {step} of {workdir}', flush=True)
  return results


def evaluate_state(state, eval_step, source, config):
  """The metrics of the raw and, where they are kept, of the averaged weights over all images of a source."""
  results: dict[str, dict] = {}
  for weights, variables in (('raw', state.variables), ('EMA', state.ema)):
    if not variables:
      continue
    variables = parallel.replicate(variables)
    total: dict = {}
    with contextlib.closing(pipeline.eval_batches(source, config)) as batches:
      for batch in batches:
        total = metrics.add(total, eval_step(variables, parallel.shard_batch(batch)))
    results[weights] = metrics.summarise(total, config.loss.alpha)
  return results


def fetch_metrics(pending, step, alpha):
  """Sums up the metrics of the steps up to `step`; Halt names the first one whose loss is not finite."""
  pending = parallel.fetch(pending)
  total: dict = {}
  for number, of_step in enumerate(pending, step - len(pending) + 1):
    if not np.isfinite(metrics.summarise(of_step, alpha)['loss']):
      raise Halt(
        f'the loss of step {number} is not finite; the checkpoints are of steps before it. '
        'Try a lower optimizer.learning_rate, a longer warm-up or optimizer.clip_norm=1',
        1,
      )
    total = metrics.add(total, of_step)
  return metrics.summarise(total, alpha)


def save(checkpoints, state, step):
  """Saves the state as `step`; Halt if it is not finite: no such one ever takes the place of a good one."""
  trees = parallel.fetch(as_trees(state))
  for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
    if not np.all(np.isfinite(leaf)):
      raise Halt(f'after step {step} {jax.tree_util.keystr(path)} is not finite and was not saved', 1)
  checkpoints.save(step, trees)


def as_trees(state):
  """The two parts of a checkpoint: what evaluation needs, and what only training does."""
  return {
    'variables': {'params': state.params, 'batch_stats': state.batch_stats, 'ema': state.ema},
    'optimizer': {'step': state.step, 'opt_state': state.opt_state},
  }


def due(step, every, last):
  """Whether something that happens every so many steps (0: never) and after the last one happens now."""
  return step == last or (every > 0 and step % every == 0)


def accuracies(results):
  """One line with the accuracies of the stages, for raw and averaged weights."""
  return 'test accuracy by stage ' + ', '.join(f'{w}: {percent_by_stage(v)}' for w, v in results.items())


def count(params):
  """The number of parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))
