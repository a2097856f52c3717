"""What a run would be: --mode=check builds everything abstractly, reads one batch and trains nothing."""

import math

import jax
import numpy as np
import rich
import rich.table

from ctx_flax.data import pipeline, sources
from ctx_flax.layers.contextualizer import default_class_counts
from ctx_flax.models.summary import summarise
from ctx_flax.training import losses, optimizer, run_lock, setup, starting_point
from ctx_flax.training import step as steps
from ctx_flax.training.halt import bad_input

MEBIBYTE = 1024**2


def check(config, workdir):
  """Prints the network, the memory of a device, the schedule and a batch; writes nothing.

  Everything that would stop `train` before its first step stops this too.

  Args:
    config: a config with the fields of configs/default.py; check.compile compiles the step as well.
    workdir: the folder that the run would have; not touched.

  Returns:
    {'layers', 'parameters', 'macs', 'memory', 'schedule', 'batch', 'steps'}: what is printed, as numbers.

  Raises:
    Halt: the input is wrong (status 2).
  """
  setup.prepare_jax(config)
  with bad_input():
    train_source = sources.open_source(config.data, 'train')
    config = starting_point.with_class_counts(config, workdir, train_source.num_classes)
    test_source = sources.open_source(config.data, 'test')
    setup.check_settings(config)
    setup.check_classes(train_source, test_source)
    per_epoch = len(train_source) / config.train.batch_size
    rate = optimizer.learning_rate_schedule(config, per_epoch)
    last = optimizer.total_steps(config, per_epoch)
    tx = optimizer.make_optimizer(config, rate, starting_point.rate_factor(config))
    model = setup.build_model(config, train_source)
    state = jax.eval_shape(lambda: setup.initial_state(config, model, tx))
    starting_point.check_freeze(config, state.params)
    if config.init.weights:
      starting_point.initial_variables(config, model, state.variables)
    batch = first_batch(train_source, config)
    first_batch(test_source, config, pipeline.eval_batches)
    step_function = steps.make_train_step(
      model, tx, config, total_steps=last, freeze_norm=config.init.freeze_norm
    )
    step_of_all = on_all_devices(step_function)
    jax.eval_shape(step_of_all, state, split(batch))
    memory = device_memory(config, model, state, batch)
    holder = run_lock.holder(workdir)

  side = config.data.image_size
  layers = summarise(model, (side, side, 3), depth=1)
  found = {
    'layers': layers,
    'parameters': sum(layer.parameters for layer in layers),
    'macs': sum(layer.macs for layer in layers),
    'steps': last,
    'memory': memory,
    'schedule': corners(config, model, rate, per_epoch, last),
    'batch': batch,
  }
  if config.check.compile:
    found['memory']['temporary, by the compiler'] = compiled_memory(step_of_all, state, split(batch, 1))
  _print(found, config, train_source, test_source, per_epoch)
  if holder:
    print(f'{workdir} is in use by {holder}: train would be refused')
  return found


def first_batch(source, config, batches_of=pipeline.train_batches):
  """A batch as training or testing takes it, made in this process."""
  config = config.copy_and_resolve_references()
  config.data.update(workers=0, threads=0)
  batches = batches_of(source, config)
  try:
    batch = next(batches)
  finally:
    batches.close()
  batch.pop('bad')
  return batch


def on_all_devices(step):
  """The step with the devices as a leading axis of the batch, for shapes and the compiler's count."""
  return jax.vmap(step, in_axes=(None, 0), out_axes=(None, None), axis_name=steps.AXIS)


def split(batch, devices=0):
  """Shapes of a batch, (devices, rows of a device, ...), of all devices or of the first few."""
  count = jax.device_count()
  return {
    name: jax.ShapeDtypeStruct((devices or count, len(x) // count, *x.shape[1:]), x.dtype)
    for name, x in batch.items()
  }


def device_memory(config, model, state, batch):
  """Bytes that one device holds while training, by part, from shapes alone.

  Exact but for the activations: those are what the backward pass of one part of the batch keeps, before the
  compiler fuses and orders anything. {name: bytes}.
  """
  devices = jax.device_count()
  rows = config.train.batch_size // devices // config.train.accumulation
  params = _bytes(state.params)
  return {
    'parameters and batch statistics': params + _bytes(state.batch_stats),
    'optimizer': _bytes(state.opt_state),
    'averaged weights': _bytes(state.ema),
    'gradients': params * (2 if config.train.accumulation > 1 else 1),
    'images and labels, those ahead too': (2 + config.data.prefetch) * _bytes(batch) // devices,
    'activations of the backward pass': activation_bytes(config, model, state, rows),
  }


def activation_bytes(config, model, state, rows):
  """Bytes of what the backward pass of so many images keeps, as jax.vjp tells it."""
  model = model.clone(axis_name=None)
  side = config.data.image_size

  def kept(params, batch_stats, images, labels):
    variables = {'params': params} | ({'batch_stats': batch_stats} if batch_stats else {})

    def loss(params):
      rngs = {'drop_path': jax.random.key(0)}
      (_, out), _ = model.apply(
        variables | {'params': params}, images, train=True, mutable=['batch_stats'], rngs=rngs
      )
      terms = losses.stage_losses(out, labels, selection=getattr(model, 'class_selection', 'rerank'))
      sums, counts = ({s: pair[i] for s, pair in terms.items()} for i in (0, 1))
      return losses.combine(sums, counts, config.loss.alpha)

    return jax.vjp(loss, params)[1]

  images = jax.ShapeDtypeStruct((rows, side, side, 3), np.float32)
  labels = jax.ShapeDtypeStruct((rows,), np.int32)
  residuals = jax.eval_shape(kept, state.params, state.batch_stats, images, labels)
  # The parameters are among them.
  return max(_bytes(residuals) - _bytes(state.params), 0)


def compiled_memory(step, state, batch):
  """Bytes of temporary memory of the training step on one device, by the compiler's own count."""
  analysis = jax.jit(step).lower(state, batch).compile().memory_analysis()
  return analysis.temp_size_in_bytes if analysis else 0  # not every backend counts


def corners(config, model, rate, per_epoch, last):
  """[{'step', 'epoch', 'learning_rate', 'class_counts'?}, ...] where the schedules turn."""
  warmup = optimizer.warmup_steps(config, per_epoch)
  named = {0, max(warmup - 1, 0), warmup, last // 4, last // 2, 3 * last // 4, last - 1}
  fraction = config.train.class_counts_warmup
  if fraction:
    named.add(math.ceil(fraction * last))
    final = model.class_counts or default_class_counts(model.num_classes)
  rows = []
  for step in sorted(step for step in named if step < last):
    row = {'step': step, 'epoch': step / per_epoch, 'learning_rate': float(rate(step))}
    if fraction:
      counts = steps.class_counts_at(step, last, fraction, model.num_classes, final)
      row['class_counts'] = tuple(counts.tolist())
    rows.append(row)
  return rows


def _bytes(tree):
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _print(found, config, train_source, test_source, per_epoch):
  blocks = rich.table.Table('block', 'output', 'parameters', 'MMAC', title=config.model.name)
  for layer in found['layers']:
    shape = ' x '.join(str(side) for side in layer.shape)
    blocks.add_row(layer.path, shape, f'{layer.parameters:,}', f'{layer.macs / 1e6:,.1f}')
  blocks.add_row('all', '', f'{found["parameters"]:,}', f'{found["macs"] / 1e6:,.1f}')

  devices, parts = jax.device_count(), config.train.accumulation
  rows = config.train.batch_size // devices // parts
  memory = rich.table.Table(
    'memory of a device',
    'MiB',
    title=f'{parts} x {rows} images on {devices} {"device" if devices == 1 else "devices"}',
  )
  for name, size in found['memory'].items():
    memory.add_row(name, f'{size / MEBIBYTE:,.1f}')
  estimated = sum(size for name, size in found['memory'].items() if 'compiler' not in name)
  memory.add_row('all, before the compiler fuses', f'{estimated / MEBIBYTE:,.1f}')

  schedule = rich.table.Table(*found['schedule'][0], title=f'{found["steps"]:,} steps')
  for row in found['schedule']:
    shown = {'epoch': f'{row["epoch"]:.2f}', 'learning_rate': f'{row["learning_rate"]:.3g}'}
    schedule.add_row(*(str((row | shown)[name]) for name in row))

  arrays = rich.table.Table('array', 'shape', 'type', 'least', 'mean', 'largest', title='one batch')
  for name, x in found['batch'].items():
    numbers = (f'{value:.3g}' for value in (x.min(), x.mean(), x.max()))
    arrays.add_row(name, ' x '.join(map(str, x.shape)), str(x.dtype), *numbers)
  for table in (blocks, memory, schedule, arrays):
    for column in table.columns[1:]:
      column.justify = 'right'
    rich.print(table)
  print(
    f'{config.data.name}: {len(train_source):,} images to train ({per_epoch:.1f} steps per epoch), '
    f'{len(test_source):,} to test, {train_source.num_classes:,} classes; '
    f'{found["parameters"]:,} parameters, {found["macs"] / 1e9:.3f} GMAC at {config.data.image_size} px'
  )
