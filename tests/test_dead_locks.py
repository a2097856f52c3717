"""A lock whose holder has died, or that cannot be read, is taken over, and by one process only."""

import os
import pathlib
import queue
import subprocess
import sys
import threading

import pytest
from lock_files import write, write_lock

from ctx_flax.training import process_identity, run_lock
from ctx_flax.training.halt import Halt
from ctx_flax.training.run_lock import STALE, STARTING, RunLock

HOLD = """
import sys
from ctx_flax.training.run_lock import RunLock
with RunLock(sys.argv[1]):
  print('held', flush=True)
  sys.stdin.read()
"""


def test_a_killed_process_does_not_block(tmp_path):
  """Not even as a zombie, before its parent has asked how it ended."""
  root = pathlib.Path(__file__).parent.parent
  pipe = subprocess.PIPE
  process = subprocess.Popen(
    [sys.executable, '-c', HOLD, str(tmp_path)], cwd=root, stdin=pipe, stdout=pipe, text=True
  )
  with process:
    assert process.stdout.readline() == 'held\n'
    with pytest.raises(Halt, match=f'in use by process {process.pid} on '), RunLock(tmp_path):
      pass
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert run_lock.holder(tmp_path) is None and (tmp_path / 'lock.json').exists()
    with RunLock(tmp_path) as lock:
      lock.check()
      assert run_lock.holder(tmp_path).pid == os.getpid()
  assert list(tmp_path.iterdir()) == []


UPTIME = 100.0  # seconds since the machine of this test was started


@pytest.mark.parametrize(
  'fields, age, alive',
  [
    ({}, 10 * STALE, True),  # a process of this machine may have been stopped for long
    ({'started': 1}, 0, False),  # the id was given again
    ({'pid': 1 << 30}, 0, False),
    ({'started': 0, 'pid': 1 << 30}, 0, False),
    ({'boot': 'before'}, UPTIME + 1, False),  # before this machine was restarted
    ({'boot': 'other'}, UPTIME - 1, True),  # a sign since then: another machine of the same name
    ({'host': 'elsewhere', 'pid': 1 << 30}, STALE - 1, True),
    ({'host': 'elsewhere'}, STALE + 1, False),
    ({'namespace': 'pid:[1]', 'pid': 1 << 30}, STALE - 1, True),  # another container of this machine
    ({'namespace': 'pid:[1]'}, STALE + 1, False),
  ],
)
def test_who_is_alive(tmp_path, monkeypatch, fields, age, alive):
  monkeypatch.setattr(process_identity, 'uptime', lambda: UPTIME)
  write_lock(tmp_path, age, **fields)
  holder = run_lock.holder(tmp_path)
  assert (holder is not None) is alive
  if alive:
    assert ('last sign of life' in str(holder)) is bool(fields)
    with pytest.raises(Halt, match='is in use by process'), RunLock(tmp_path):
      pass
  else:
    with RunLock(tmp_path) as lock:
      lock.check()


@pytest.mark.parametrize('text', ['', '{"host": "a', '[1]', '\0' * 100, '{"pid": 3}'])
def test_a_lock_that_cannot_be_read(tmp_path, text):
  """It is being written just now, or is what a power cut left."""
  write(tmp_path / 'lock.json', text, STARTING - 1)
  with pytest.raises(Halt, match='in use by a process that is just starting'), RunLock(tmp_path):
    pass
  assert (tmp_path / 'lock.json').read_text() == text
  write(tmp_path / 'lock.json', text, STARTING + 1)
  with RunLock(tmp_path) as lock:
    lock.check()


@pytest.mark.parametrize('before', ['nothing', 'dead', 'dead while taking over'])
def test_of_many_that_start_at_once_one_comes_through(tmp_path, before):
  if before != 'nothing':
    write_lock(tmp_path, started=1)
  if before == 'dead while taking over':
    text = (tmp_path / 'lock.json').read_text()
    (tmp_path / 'lock.json.of-before').write_text(text.replace('of-before', 'of-the-taker'))
  barrier, release, told = threading.Barrier(8), threading.Event(), queue.Queue()

  def start():
    lock = RunLock(tmp_path)
    barrier.wait()
    try:
      with lock:
        told.put(lock)
        release.wait()
    except Halt:
      told.put(None)

  threads = [threading.Thread(target=start) for _ in range(8)]
  for thread in threads:
    thread.start()
  (lock,) = filter(None, [told.get(timeout=20) for _ in threads])
  assert not lock.lost() and [path.name for path in tmp_path.iterdir()] == ['lock.json']
  release.set()
  for thread in threads:
    thread.join()
  assert list(tmp_path.iterdir()) == []


def test_who_is_slow_to_take_over_a_dead_lock_leaves_the_next_one_alone(tmp_path, monkeypatch):
  """It has seen the dead lock, and comes to replace it when another has done so."""
  write_lock(tmp_path, started=1)
  create, first = run_lock._create, RunLock(tmp_path)

  def slow(path, own):
    if path.name == 'lock.json.of-before' and own != first._own:
      monkeypatch.setattr(run_lock, '_create', create)
      first.__enter__()
    return create(path, own)

  monkeypatch.setattr(run_lock, '_create', slow)
  with pytest.raises(Halt, match='is in use by'), RunLock(tmp_path):
    pass
  assert not first.lost() and [path.name for path in tmp_path.iterdir()] == ['lock.json']
  first.__exit__()
