"""Steps on all devices. The only file that says pmap.

The form without a leading device axis: the state is one logical value that every device holds, the batch is
(devices, b / devices, ...), and metrics come back as one value. `devices` is all of them unless told; of
several processes each places the state and its part of the batch on its own devices; steps sum over all.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = 'batch'  # of the devices, in steps and in the sums over them


def replicate(tree, devices=None):
  """Places a tree of arrays on every device of this process: the form that the pmapped steps take and return.

  The copies are fresh, so that a step that consumes them leaves the original as it is.
  """
  # device_put alone would keep the original's memory as the copy of its own device.
  return jax.device_put(_copied(tree), _sharding(devices, PartitionSpec()))


@jax.jit  # one program for a whole tree
def _copied(tree):
  return jax.tree.map(jnp.copy, tree)


def fetch(tree):
  """The values of replicated arrays, as numpy arrays on this host. Waits for the devices."""
  return jax.device_get(tree)


def shard_batch(batch, devices=None):
  """Splits every array of a batch for the devices of this process: (b, ...) -> (devices, b / devices, ...).

  Raises:
    ValueError: where the batch cannot be divided by the devices, or its arrays differ in length.
  """
  count = len(devices or jax.local_devices())
  sizes = {name: len(value) for name, value in batch.items()}
  if len(set(sizes.values())) != 1:
    raise ValueError(f'the arrays of a batch must have one length, but have {sizes}')
  size = next(iter(sizes.values()))
  if size % count:
    raise ValueError(
      f'a batch of {size} images cannot be divided by {count} devices: take a multiple of {count}'
    )
  return {
    name: np.reshape(value, (count, size // count, *np.shape(value)[1:])) for name, value in batch.items()
  }


def place_batch(batch, devices=None):
  """`shard_batch`, and each part already on its device; returns before they have arrived."""
  return jax.device_put(shard_batch(batch, devices), _sharding(devices, PartitionSpec(AXIS)))


def pmap_train_step(step, devices=None):
  """(state, sharded batch) -> (state, metrics) on all devices. The state that goes in is consumed."""
  run = jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=(None, None), devices=devices, donate_argnums=0)
  return _one_at_a_time(run, devices)


def pmap_eval_step(step, devices=None):
  """(variables, sharded batch) -> metrics on all devices."""
  run = jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=None, devices=devices)
  return _one_at_a_time(run, devices)


def pmap_rows(function, devices=None):
  """(variables, sharded batch) -> what the function gives for the batch, row by row, on all devices."""
  run = _one_at_a_time(jax.pmap(function, AXIS, in_axes=(None, 0), devices=devices), devices)
  return lambda variables, batch: jax.tree.map(
    lambda x: np.reshape(x, (-1, *x.shape[2:])), fetch(run(variables, batch))
  )


def _sharding(devices, spec):
  return NamedSharding(Mesh(np.asarray(devices or jax.local_devices()), (AXIS,)), spec)


def _one_at_a_time(run, devices):
  """Waits for each step where several CPU devices run it; elsewhere steps may run ahead of the host.

  CPU devices share one pool of threads, in which the sums over devices of one step can wait for threads
  that those of the next step hold, for ever (XLA ends the process after a minute).
  """
  devices = devices or jax.devices()
  if len(devices) == 1 or devices[0].platform != 'cpu':
    return run
  return lambda *args: jax.block_until_ready(run(*args))
