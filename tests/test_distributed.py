"""Joining processes: what is missing or wrong is told before anything is waited for."""

import jax
import numpy as np
import pytest

from ctx_flax.training import distributed
from ctx_flax.training.halt import Halt

LAUNCHERS = distributed.LAUNCHERS
NAMES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID', *LAUNCHERS, *LAUNCHERS.values())


@pytest.fixture
def joined(monkeypatch):
  """What jax.distributed.initialize was called with, in an environment that names no other processes."""
  for name in NAMES:
    monkeypatch.delenv(name, raising=False)
  calls = []
  monkeypatch.setattr(jax.distributed, 'initialize', lambda *args: calls.append(args))
  monkeypatch.setattr(jax.config, 'update', lambda *args: None)
  return calls


def test_alone_nothing_is_joined(joined, monkeypatch):
  distributed.join()
  monkeypatch.setenv('SLURM_NTASKS', '1')
  distributed.join()
  # The shell of an allocation, in which srun has started nothing.
  monkeypatch.setenv('SLURM_NTASKS', '4')
  distributed.join()
  assert joined == []


def test_flags_go_before_the_environment(joined, monkeypatch):
  distributed.join('host:1', 4, 0)
  for name, value in zip(NAMES, ('other:2', '8', '3'), strict=False):
    monkeypatch.setenv(name, value)
  distributed.join()
  distributed.join(process_id=5)
  assert joined == [('host:1', 4, 0), ('other:2', 8, 3), ('other:2', 8, 5)]


@pytest.mark.parametrize('name', LAUNCHERS)
def test_a_launcher_tells_jax_itself(joined, monkeypatch, name):
  monkeypatch.setenv(name, '16')
  monkeypatch.setenv(LAUNCHERS[name], 'node[1-16]')
  distributed.join()
  assert joined == [(None, None, None)]


def test_mistakes_are_named(joined, monkeypatch):
  with pytest.raises(Halt, match='needs --num_processes and --process_id too'):
    distributed.join('host:1')
  with pytest.raises(Halt, match='--process_id=2 must be below --num_processes=2'):
    distributed.join('host:1', 2, 2)
  monkeypatch.setenv('JAX_PROCESS_ID', 'zero')
  with pytest.raises(Halt, match="JAX_PROCESS_ID must be a number, but is 'zero'"):
    distributed.join('host:1', 2)
  assert joined == []


def test_what_joining_raises_is_one_line(joined, monkeypatch):
  def refuse(*_):
    raise RuntimeError('no answer\nfrom host:1')

  monkeypatch.setattr(jax.distributed, 'initialize', refuse)
  with pytest.raises(Halt, match='joining the other processes failed: no answer from host:1'):
    distributed.join('host:1', 2, 1)


def test_the_end_of_another_process_is_told(monkeypatch):
  def lose():
    with distributed.lost_processes():
      raise jax.errors.JaxRuntimeError('Connection closed by peer\nmore')

  with pytest.raises(jax.errors.JaxRuntimeError):
    lose()
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(Halt, match=r'a step of process 0 failed: Connection closed by peer\. If') as told:
    lose()
  assert told.value.status == 1


def test_alone_the_total_is_its_own():
  np.testing.assert_array_equal(distributed.total([True, 2, 0.5]), [1, 2, 0.5])
  distributed.check_same('step', 3)
