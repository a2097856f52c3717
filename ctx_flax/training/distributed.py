"""Several processes as one run: joining them, and agreeing on what only one of them knows."""

import contextlib
import os

import jax
import numpy as np
from jax.experimental import multihost_utils

from ctx_flax.training.halt import Halt

# What a launcher that starts several processes sets, and jax understands by itself: the number of processes,
# and what is there only in a process that it started (the shell of a SLURM allocation has the number too).
LAUNCHERS = {'SLURM_NTASKS': 'SLURM_STEP_NODELIST', 'OMPI_COMM_WORLD_SIZE': 'OMPI_MCA_orte_hnp_uri'}


def join(coordinator_address='', num_processes=0, process_id=-1):
  """Joins the processes of a run, before anything else touches the devices.

  Each argument that is not given is taken from the environment: JAX_COORDINATOR_ADDRESS,
  JAX_NUM_PROCESSES, JAX_PROCESS_ID, or what SLURM or Open MPI set for the tasks that they start. With nothing
  given at all, the process is alone.

  Args:
    coordinator_address: 'HOST:PORT' of process 0, the same for all; '' = not given.
    num_processes: how many processes; 0 = not given.
    process_id: number of this one, from 0; -1 = not given.

  Raises:
    Halt: only a part of the three is given, they contradict one another, or the others are not there.
  """
  coordinator_address = coordinator_address or os.environ.get('JAX_COORDINATOR_ADDRESS', '')
  num_processes = num_processes or _number('JAX_NUM_PROCESSES', 0)
  process_id = process_id if process_id >= 0 else _number('JAX_PROCESS_ID', -1)
  launched = any(_number(name, 1) > 1 and os.environ.get(own) for name, own in LAUNCHERS.items())
  given = {
    '--coordinator_address': coordinator_address != '',
    '--num_processes': num_processes > 0,
    '--process_id': process_id >= 0,
  }
  if not any(given.values()) and not launched:
    return
  missing = [flag for flag, there in given.items() if not there]
  if missing and not launched:
    raise Halt(
      f'a run of several processes needs {" and ".join(missing)} too (or the environment, or SLURM)', 2
    )
  if not missing and process_id >= num_processes:
    raise Halt(f'--process_id={process_id} must be below --num_processes={num_processes}', 2)
  # Only the CPU backend needs to be told how to talk to the others.
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  try:
    jax.distributed.initialize(
      coordinator_address or None,
      num_processes if num_processes > 0 else None,
      process_id if process_id >= 0 else None,
    )
  except (ValueError, RuntimeError) as error:
    raise Halt(f'joining the other processes failed: {" ".join(str(error).split())}', 2) from error


@contextlib.contextmanager
def lost_processes():
  """Turns what a step raises when another process of the run has ended into a Halt."""
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() == 1:
      raise
    reason = str(error).splitlines()[0][:200]
    raise Halt(
      f'a step of process {jax.process_index()} failed: {reason}. If another process of the run has ended, '
      'its message says why',
      1,
    ) from error


def joined():
  """Whether this process belongs to a run of several. Starts no devices."""
  return jax.distributed.is_initialized()


def check_alone(what):
  """ValueError in a run of several processes, which would all write the same files."""
  if jax.process_count() > 1:
    raise ValueError(f'{what} runs in one process; it uses all of its devices')


def total(values):
  """Sums a list of numbers over the processes; all of them must call it at the same point of the run."""
  values = np.asarray(values, np.float64)
  if jax.process_count() == 1:
    return values
  # In float32, exact for counts: jax has no float64 unless told.
  return np.asarray(multihost_utils.process_allgather(values.astype(np.float32))).sum(0)


def check_same(name, number):
  """Halt where the processes do not all hold the same number: they do not see the same files."""
  if jax.process_count() == 1:
    return
  numbers = np.asarray(multihost_utils.process_allgather(np.asarray([number], np.int32))).ravel()
  if len(set(numbers.tolist())) > 1:
    raise Halt(
      f'the processes found different {name}s {numbers.tolist()}: --workdir must be a folder that all share',
      2,
    )


def _number(name, default):
  text = os.environ.get(name, '')
  try:
    return int(text) if text else default
  except ValueError:
    raise Halt(f'the environment variable {name} must be a number, but is {text!r}', 2) from None
