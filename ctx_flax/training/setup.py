"""What every run needs before it starts; a ValueError names the field that is wrong."""

import os
from typing import Any

import jax

from ctx_flax.configs import rules
from ctx_flax.data import batches
from ctx_flax.training import starting_point, state
from ctx_flax.training import step as steps
from ctx_flax.training.task import Task


def initial_state(config: Any, task: Task, model: Any, tx: Any) -> state.TrainState:
  """The state at step 0; its values follow from config.seed."""
  variables = task.initial_variables(config, model, jax.random.key(config.seed))
  return state.create_state(variables, tx, ema=config.train.ema_decay > 0)


def check_settings(config: Any, task: Task) -> None:
  """Raises ValueError for a batch that the devices cannot share, and for fields without meaning."""
  rules.check(config)
  rules.check_memory(config, jax.process_count())
  batches.check_settings(config)
  task.check_batches(config)
  steps.check_settings(config)
  starting_point.check_settings(config)
  task.check_settings(config)
  devices = jax.device_count()
  for field, size in (('train', config.train.batch_size), ('eval', config.eval.batch_size)):
    if size % devices:
      raise ValueError(f'{field}.batch_size is {size}: it must be a multiple of the {devices} devices')
  rows = config.train.batch_size // devices
  if rows % config.train.accumulation:
    raise ValueError(
      f'train.accumulation is {config.train.accumulation}: it must divide the {rows} {task.examples} of a '
      'device'
    )
  if not 0 <= config.train.ema_decay < 1:
    raise ValueError(f'train.ema_decay must be at least 0 (off) and below 1, but is {config.train.ema_decay}')


def check_memory(config: Any, state: Any) -> None:
  """Raises ValueError if a state, as shapes and dtypes, is larger than the memory of a device.

  What a step needs beside it is not counted: this is for sizes that are mistyped.
  """
  needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
  statistics = jax.local_devices()[0].memory_stats() or {}
  memory = statistics.get('bytes_limit') or rules.machine_memory()
  if memory and needed > memory:
    raise ValueError(
      f'the parameters of {config.model.name}, with what the optimizer keeps of them, take '
      f'{needed / 2**30:,.0f} GiB on each device, which has {memory / 2**30:,.0f} GiB: make model.dims, '
      'model.depths, model.embed_dim or model.num_classes smaller'
    )


def prepare_jax(config: Any) -> None:
  """Sets the JAX options that must precede any computation: compilation cache, deterministic operations."""
  use_compilation_cache(config)
  if config.train.deterministic:
    flags = os.environ.get('XLA_FLAGS', '')
    if '--xla_gpu_deterministic_ops' not in flags:
      # Read when the devices are first used. The scatter-adds of deformable convolution's gradient add up in
      # any order otherwise.
      os.environ['XLA_FLAGS'] = f'{flags} --xla_gpu_deterministic_ops=true'.strip()


def use_compilation_cache(config: Any) -> None:
  """Lets jax keep compiled programs in config.compilation_cache, unless that is '' or jax has a cache."""
  # The options of jax.config are made at run time, so a type checker does not see them.
  present = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
  if config.compilation_cache and not present:
    jax.config.update('jax_compilation_cache_dir', os.path.expanduser(config.compilation_cache))
