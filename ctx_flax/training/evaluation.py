"""Testing the weights of a run on all images of a source."""

import contextlib
import pathlib
import types

import jax
import jax.numpy as jnp
import rich

from ctx_flax.data import pipeline, sources
from ctx_flax.training import distributed, metrics, optimizer, parallel, setup, starting_point
from ctx_flax.training import step as steps
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.damaged_checkpoints import chosen
from ctx_flax.training.feed import BadImages, Feed
from ctx_flax.training.halt import bad_data, bad_input
from ctx_flax.training.logging import Progress, percent_by_stage, results_table

WEIGHTS = ('all', 'raw', 'EMA')  # what config.eval.weights may be


def evaluate(config, workdir):
  """Restores a checkpoint of workdir, tests its raw and averaged weights and prints a table.

  Args:
    config: a config with the fields of configs/default.py; eval.checkpoint and eval.weights say what is
      tested. Those of the optimizer need not be the run's.
    workdir: the folder of the run.

  Returns:
    {'raw': {name: float}, 'EMA': {name: float}}, of which eval.weights may leave one out.

  Raises:
    Halt: wrong input, no such checkpoint, one that does not fit the model, or an image that cannot be read
      where that is an error (status 2).
  """
  workdir = pathlib.Path(workdir)
  setup.prepare_jax(config)
  with bad_input():
    source = sources.open_source(config.data, 'test')
    setup.check_settings(config)
    model = setup.build_model(config, source)
    step, state = restore_variables(config, workdir, model)
    weights = weights_of(state, config.eval.weights)
  eval_step = parallel.pmap_eval_step(steps.make_eval_step(model))
  first = jax.process_index() == 0
  with bad_data(), Progress(last=0, start=0, active=first) as progress:
    bad = bad_test_images(source, config, progress.warn)
    results = test(weights, eval_step, source, config, bad)
  if first:
    rich.print(results_table(results))
  left_out = int(distributed.total([bad.take()])[0])
  if first and left_out:
    print(f'{left_out} of {len(source)} images could not be read and do not count')
  if first:
    print(f'{accuracies(results)}; step {step} of {workdir}', flush=True)
  return results


def restore_variables(config, workdir, model):
  """(step, TrainState) of the checkpoint config.eval.checkpoint; the optimizer's part stays abstract.

  Raises:
    ValueError: there is no such checkpoint, it is damaged, or it does not fit the model.
  """
  with Checkpoints(workdir / 'checkpoints', read_only=True) as checkpoints:
    tx = optimizer.make_optimizer(config, config.optimizer.learning_rate)
    state = jax.eval_shape(lambda: setup.initial_state(config, model, tx))
    wanted = {'variables': as_trees(state)['variables']}
    step, restored = chosen(
      checkpoints, config.eval.checkpoint, lambda step: checkpoints.restore(step, wanted)
    )
  return step, state.replace(**restored['variables'])


def restore_network(config, workdir, classes):
  """A run's network, ready to be applied outside of the pmapped steps.

  Args:
    config, workdir: of the run; config.eval.{checkpoint, weights} say which weights ('all': the averaged ones
      where the run keeps them).
    classes: what build_model asks of a source.

  Returns:
    (model, its variables on the default device and the tables of model.class_tables, step, 'EMA' or 'raw').

  Raises:
    ValueError: there is no such checkpoint, or it does not fit the model.
  """
  model = setup.build_model(config, classes).clone(axis_name=None)
  step, state = restore_variables(config, workdir, model)
  held = weights_of(state, config.eval.weights)
  which = 'EMA' if 'EMA' in held else 'raw'
  variables = jax.tree.map(jnp.asarray, held[which])
  return model, {**variables, **model.class_tables(variables)}, step, which


def classes_of(config, workdir, warn=print):
  """What build_model asks of a source, from the data or, where they are not at hand, from the checkpoint.

  Args:
    config, workdir: of the run.
    warn: is told in one line where classes have no other names than their numbers.
  """
  try:
    return sources.open_source(config.data, 'train')
  except (ValueError, OSError) as error:
    number = starting_point.read_weights(workdir).about['model']['num_classes']
    warn(f'the classes are called by their numbers: {" ".join(str(error).split())}')
    return types.SimpleNamespace(num_classes=number, class_names=tuple(map(str, range(number))))


def weights_of(state, which='all'):
  """{'raw': variables, 'EMA': variables}: those that the state holds and config.eval.weights wants.

  Raises:
    ValueError: an unknown name, or averaged weights that the state does not hold.
  """
  if which not in WEIGHTS:
    raise ValueError(f'eval.weights is {which!r}: it must be one of {", ".join(WEIGHTS)}')
  held = {'raw': state.variables} | ({'EMA': state.ema} if state.ema else {})
  if which == 'EMA' and 'EMA' not in held:
    raise ValueError('eval.weights is EMA, but this run keeps none (train.ema_decay is 0)')
  return held if which == 'all' else {which: held[which]}


def bad_test_images(source, config, warn):
  """The BadImages of a source to test on."""
  return BadImages(lambda index: pipeline.describe_bad(source, index, config), warn)


def test(weights, eval_step, source, config, bad):
  """The metrics of each of {name: variables} over all images of a source, which is read once.

  Images that cannot be read do not count; `bad`, a BadImages, is told of them.
  """
  weights = {name: parallel.replicate(variables) for name, variables in weights.items()}
  totals: dict[str, dict] = {name: {} for name in weights}

  def place(batch):
    bad.add(batch.pop('bad'), 'does not count in the test')
    return parallel.place_batch(batch)

  batches = pipeline.eval_batches(source, config, jax.process_index(), jax.process_count())
  with contextlib.closing(Feed(batches, place, config.data.prefetch)) as feed:
    for batch in feed:
      for name, variables in weights.items():
        totals[name] = metrics.add(totals[name], eval_step(variables, batch))
  return {name: metrics.summarise(total, config.loss.alpha) for name, total in totals.items()}


def as_trees(state):
  """The two parts of a checkpoint: what evaluation needs, and what only training does."""
  return {
    'variables': {'params': state.params, 'batch_stats': state.batch_stats, 'ema': state.ema},
    'optimizer': {'step': state.step, 'opt_state': state.opt_state},
  }


def accuracies(results):
  """One line with the accuracies of the stages, for raw and averaged weights."""
  return 'test accuracy by stage ' + ', '.join(f'{w}: {percent_by_stage(v)}' for w, v in results.items())
