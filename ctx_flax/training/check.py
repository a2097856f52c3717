"""What a run would be: --mode=check plans it, reads one batch, traces the step and trains nothing."""

import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import rich.table

from ctx_flax.terminal import console
from ctx_flax.training import optimizer, run_lock, setup
from ctx_flax.training.halt import bad_data, bad_input
from ctx_flax.training.parallel import AXIS
from ctx_flax.training.plan import Plan, make_plan
from ctx_flax.training.state import TrainState
from ctx_flax.training.task import Objective, Task

MEBIBYTE = 1024**2
COMPILED = 'temporary, by the compiler'


def check(config: Any, workdir: str | os.PathLike[str], task: Task) -> dict[str, Any]:
  """Prints the network, the memory of a device, the schedule and a batch; writes no run.

  Whatever refuses `train` refuses this too: both begin with the same plan.

  Args:
    config: a config with the task's fields; check.compile compiles the step as well.
    workdir: the folder that the run would have; not touched.
    task: of the config.

  Returns:
    {'layers', 'parameters', 'macs', 'memories', 'memory', 'schedule', 'batch', 'steps'}: what is printed, as
    numbers; 'memories' by the name of a shape of batches, 'memory' the largest of them.

  Raises:
    Halt: the input is wrong (status 2).
  """
  workdir = pathlib.Path(os.path.expanduser(workdir))
  setup.prepare_jax(config)
  with bad_data(), bad_input():
    plan = make_plan(config, workdir, task, thorough=True)
    batch = first_batch(plan.config, lambda c: task.train_batches(plan.train_source, c, 0, 0, 1))
    first_batch(plan.config, lambda c: task.eval_batches(plan.test_source, c, 0, 1))
    step = on_all_devices(plan.step_function)
    shapes = task.batch_shapes(plan.config, batch)
    for of_batch in shapes.values():
      jax.eval_shape(step, plan.state, split(of_batch))
    memories = {name: device_memory(plan, of_batch) for name, of_batch in shapes.items()}
    holder = run_lock.holder(workdir)
  layers = task.layers(plan.config, plan.model)
  summary = {
    'layers': layers,
    'parameters': sum(leaf.size for leaf in jax.tree.leaves(plan.state.params)),
    'macs': sum(layer.macs for layer in layers),
    'steps': plan.last_step,
    'memories': memories,
    'memory': max(memories.values(), key=lambda parts: sum(parts.values())),
    'schedule': corners(plan),
    'batch': batch,
  }
  if config.check.compile:
    for name, memory in memories.items():
      memory[COMPILED] = compiled_memory(step, plan.state, split(shapes[name], 1))
  _print(summary, plan)
  if holder:
    print(f'{workdir} is in use by {holder}: train would be refused')
  return summary


def first_batch(config: Any, batches_of: Callable[[Any], Iterator[dict[str, Any]]]) -> dict[str, Any]:
  """A batch as training or testing takes it, made in this process."""
  config = config.copy_and_resolve_references()
  config.data.update(workers=0, threads=0)
  batches: Any = batches_of(config)
  try:
    batch = next(batches)
  finally:
    batches.close()
  batch.pop('bad')
  return batch


def on_all_devices(step: Callable) -> Callable:
  """The step with the devices as a leading axis of the batch, for shapes and the compiler's count."""
  return jax.vmap(step, in_axes=(None, 0), out_axes=(None, None), axis_name=AXIS)


def split(batch: Mapping[str, Any], devices: int = 0) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of a batch, (devices, rows of a device, ...), of all devices or of the first few."""
  count = jax.device_count()
  return {
    name: jax.ShapeDtypeStruct((devices or count, x.shape[0] // count, *x.shape[1:]), x.dtype)
    for name, x in batch.items()
  }


def device_memory(plan: Plan, batch: Mapping[str, Any]) -> dict[str, int]:
  """Bytes that one device holds while training, by part, from shapes alone.

  Exact but for the activations: those are what the backward pass of one part of the batch keeps, before the
  compiler fuses and orders anything.
  """
  config, state, devices = plan.config, plan.state, jax.device_count()
  rows = config.train.batch_size // devices // config.train.accumulation
  params = _bytes(state.params)
  part = {name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for name, x in batch.items()}
  return {
    'parameters and batch statistics': params + _bytes(state.batch_stats),
    'optimizer': _bytes(state.opt_state),
    'averaged weights': _bytes(state.ema),
    'gradients': params * (2 if config.train.accumulation > 1 else 1),
    'batches, those ahead too': (2 + config.data.prefetch) * _bytes(dict(batch)) // devices,
    'activations of the backward pass': activation_bytes(plan.objective, state, part),
  }


def activation_bytes(objective: Objective, state: TrainState, part: Mapping[str, Any]) -> int:
  """Bytes of the residuals that jax.vjp keeps for the rows of a part of a batch, given as shapes."""

  def residuals(params, batch_stats, part):
    def loss(params):
      outputs = objective.terms(params, batch_stats, part, jax.random.key(0), jnp.zeros((), jnp.int32))
      return sum(
        objective.weights[name] * (total / jnp.maximum(count, 1.0))
        for name, (total, count) in outputs.losses.items()
      )

    return jax.vjp(loss, params)[1]

  # One device, with the axis that BatchNorm averages over.
  one = jax.vmap(residuals, in_axes=(None, None, 0), axis_name=AXIS)
  rows = {name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in part.items()}
  kept = jax.eval_shape(one, state.params, state.batch_stats, rows)
  # The parameters are among them.
  return max(_bytes(kept) - _bytes(state.params), 0)


def compiled_memory(step: Callable, state: TrainState, batch: Mapping[str, Any]) -> int:
  """Bytes of temporary memory of the training step on one device, by the compiler's own count."""
  analysis = jax.jit(step).lower(state, batch).compile().memory_analysis()
  return analysis.temp_size_in_bytes if analysis else 0  # not every backend counts


def corners(plan: Plan) -> list[dict[str, Any]]:
  """[{'step', 'epoch', 'learning_rate', and what the task schedules}, ...] where the schedules turn."""
  last, warmup = plan.last_step, optimizer.warmup_steps(plan.config, plan.steps_per_epoch)
  turns, scheduled = plan.task.milestones(plan.config, plan.model, last)
  named = {0, max(warmup - 1, 0), warmup, last // 4, last // 2, 3 * last // 4, last - 1} | turns
  named |= {step - i for step in optimizer.drop_steps(plan.config, plan.steps_per_epoch) for i in (0, 1)}
  return [
    {'step': step, 'epoch': step / plan.steps_per_epoch, 'learning_rate': float(plan.schedule(step))}
    | scheduled(step)
    for step in sorted(step for step in named if step < last)
  ]


def _bytes(tree: Any) -> int:
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _print(summary: Mapping[str, Any], plan: Plan) -> None:
  config = plan.config
  tables = [
    _memory_table(summary, config, plan.task.examples),
    _schedule_table(summary),
    _batch_table(summary),
  ]
  if summary['layers']:
    tables.insert(0, _layer_table(summary, config))
  for table in tables:
    for column in table.columns[1:]:
      column.justify = 'right'
    console().print(table)
  for line in plan.task.remarks(plan.train_source, plan.test_source):
    print(line)
  size = f'{summary["parameters"]:,} parameters'
  if summary['layers']:
    size += f', {summary["macs"] / 1e9:.3f} GMAC at {plan.task.size(config)}'
  print(f'{config.data.name}: {plan.steps_per_epoch:.1f} steps per epoch; {size}')


def _layer_table(summary: Mapping[str, Any], config: Any) -> rich.table.Table:
  blocks = rich.table.Table('block', 'output', 'parameters', 'MMAC', title=config.model.name)
  for layer in summary['layers']:
    shape = ' x '.join(str(side) for side in layer.shape)
    blocks.add_row(layer.path, shape, f'{layer.parameters:,}', f'{layer.macs / 1e6:,.1f}')
  blocks.add_row('all', '', f'{summary["parameters"]:,}', f'{summary["macs"] / 1e6:,.1f}')
  return blocks


def _memory_table(summary: Mapping[str, Any], config: Any, examples: str) -> rich.table.Table:
  devices, parts = jax.device_count(), config.train.accumulation
  rows = config.train.batch_size // devices // parts
  title = f'{parts} x {rows} {examples} on {devices} {"device" if devices == 1 else "devices"}'
  memories = summary['memories']
  table = rich.table.Table('memory of a device', *(f'{name} MiB'.strip() for name in memories), title=title)
  for part in summary['memory']:
    table.add_row(part, *(_mebibytes(memory[part]) for memory in memories.values()))
  estimated = (sum(memory.values()) - memory.get(COMPILED, 0) for memory in memories.values())
  table.add_row('all, before the compiler fuses', *map(_mebibytes, estimated))
  return table


def _mebibytes(size: int) -> str:
  return f'{size / MEBIBYTE:,.1f}'


def _schedule_table(summary: Mapping[str, Any]) -> rich.table.Table:
  schedule = rich.table.Table(*summary['schedule'][0], title=f'{summary["steps"]:,} steps')
  for row in summary['schedule']:
    shown = {'epoch': f'{row["epoch"]:.2f}', 'learning_rate': f'{row["learning_rate"]:.3g}'}
    schedule.add_row(*(str((row | shown)[name]) for name in row))
  return schedule


def _batch_table(summary: Mapping[str, Any]) -> rich.table.Table:
  arrays = rich.table.Table('array', 'shape', 'type', 'least', 'mean', 'largest', title='one batch')
  for name, x in summary['batch'].items():
    numbers = (f'{value:.3g}' for value in (x.min(), x.mean(), x.max()))
    arrays.add_row(name, ' x '.join(map(str, x.shape)), str(x.dtype), *numbers)
  return arrays
