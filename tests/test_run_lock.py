"""The lock of a run's folder: one holder at a time, whatever became of the one before."""

import dataclasses
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading

import pytest
from mean_colour import MeanColour, settings
from run_files import contents

from ctx_flax.training import check, distributed, loop, metric_log, process_identity, run_lock
from ctx_flax.training.halt import Halt
from ctx_flax.training.run_lock import STALE, STARTING, RunLock

HOLD = """
import sys
from ctx_flax.training.run_lock import RunLock
with RunLock(sys.argv[1]):
  print('held', flush=True)
  sys.stdin.read()
"""


def write_lock(folder, age=0.0, **fields):
  """Writes the lock of this process, with other fields, and a heartbeat so many seconds ago."""
  folder.mkdir(exist_ok=True)
  own = RunLock(folder)._own
  fields = run_lock._fields(dataclasses.replace(own, token='of-before', **fields))
  write(folder / 'lock.json', json.dumps(fields), age)


def write(path, text, age):
  path.write_text(text)
  renewed = path.stat().st_mtime - age
  os.utime(path, (renewed, renewed))


def test_a_second_run_is_refused_and_touches_nothing(tmp_path):
  with RunLock(tmp_path / 'new' / 'run') as lock:
    before = contents(tmp_path)
    with pytest.raises(Halt) as refused, RunLock(tmp_path / 'new' / 'run'):
      pass
    assert contents(tmp_path) == before
    lock.check()
    holder = run_lock.holder(tmp_path / 'new' / 'run')
    assert holder.pid == os.getpid() and f'process {os.getpid()} on {holder.host} (training since' in str(
      holder
    )
  message = str(refused.value)
  assert str(holder) in message and f'delete {tmp_path}/new/run/lock.json' in message and '\n' not in message
  assert refused.value.status == 2
  assert list((tmp_path / 'new').iterdir()) == [] and run_lock.holder(tmp_path / 'new' / 'run') is None


def test_the_lock_ends_with_an_exception_and_the_files_stay(tmp_path):
  with pytest.raises(ZeroDivisionError), RunLock(tmp_path):
    (tmp_path / 'metrics.jsonl').touch()
    raise ZeroDivisionError
  assert [path.name for path in tmp_path.iterdir()] == ['metrics.jsonl']


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


def test_a_lost_lock_is_noticed_and_that_of_another_stays(tmp_path):
  with RunLock(tmp_path) as lock:
    write_lock(tmp_path, host='elsewhere', pid=7)
    with pytest.raises(Halt, match=r'lock\.json was taken over by process 7 on elsewhere.*stops') as stopped:
      lock.check()
  assert stopped.value.status == 1 and run_lock.holder(tmp_path).pid == 7
  (tmp_path / 'lock.json').unlink()
  with RunLock(tmp_path) as lock:
    (tmp_path / 'lock.json').unlink()
    with pytest.raises(Halt, match=r'lock\.json was removed: this run stops'):
      lock.check()


def test_the_heartbeat_renews_its_own_lock_only(tmp_path, monkeypatch):
  monkeypatch.setattr(run_lock, 'HEARTBEAT', 0.0)
  renewed, original = threading.Event(), os.utime
  monkeypatch.setattr(run_lock.os, 'utime', lambda *args: original(*args) or renewed.set())
  path = tmp_path / 'lock.json'
  with RunLock(tmp_path):
    original(path, (1, 1))
    renewed.clear()
    assert renewed.wait(20) and path.stat().st_mtime > 1
  write_lock(tmp_path, age=5)
  before = path.stat().st_mtime
  lock = RunLock(tmp_path)
  ends = iter((False, True))
  monkeypatch.setattr(lock._released, 'wait', lambda _: next(ends))
  lock._beat()
  assert path.stat().st_mtime == before


def test_of_several_processes_the_first_one_holds_and_all_learn_of_it(tmp_path, monkeypatch):
  monkeypatch.setattr(run_lock.jax, 'process_index', lambda: 1)
  with RunLock(tmp_path / 'run') as lock:
    assert not (tmp_path / 'run').exists() and not lock.lost()
    monkeypatch.setattr(distributed, 'total', lambda values: [1.0])  # what process 0 says
    with pytest.raises(Halt) as stopped:
      lock.check()
    assert stopped.value.status == 1
  with pytest.raises(Halt, match='process 0 of the run was refused') as refused, RunLock(tmp_path / 'run'):
    pass
  assert refused.value.status == 2 and not (tmp_path / 'run').exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / 'run').write_text('a file')
  with (
    pytest.raises(Halt, match=r'run/lock\.json could not be written: .*File exists') as refused,
    RunLock(tmp_path / 'run'),
  ):
    pass
  assert refused.value.status == 2


@pytest.mark.usefixtures('mean_colour_task')
def test_training_in_a_folder_in_use_is_refused(tmp_path, capsys):
  """train touches nothing; check says who holds it; a run whose lock is taken writes nothing more."""
  config = settings(steps=4)
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1}\n')
  write_lock(tmp_path)
  before = contents(tmp_path)
  with pytest.raises(Halt, match=f'{tmp_path} is in use by process {os.getpid()} on ') as refused:
    loop.train(config, tmp_path, MeanColour())
  assert refused.value.status == 2 and contents(tmp_path) == before
  check.check(config, tmp_path, MeanColour())
  last = capsys.readouterr().out.splitlines()[-1]
  assert last.startswith(f'{tmp_path} is in use by process {os.getpid()} on ') and 'refused' in last
  assert contents(tmp_path) == before


@pytest.mark.usefixtures('mean_colour_task')
def test_a_run_that_lost_its_lock_writes_nothing_more(tmp_path, monkeypatch):
  original = metric_log.MetricLog.write

  def write(self, step, line):
    original(self, step, line)
    write_lock(tmp_path, host='elsewhere')

  monkeypatch.setattr(metric_log.MetricLog, 'write', write)
  config = settings(steps=4)
  config.train.checkpoint_every = 1
  with pytest.raises(Halt, match=r'was taken over by process .* on elsewhere') as stopped:
    loop.train(config, tmp_path, MeanColour())
  assert stopped.value.status == 1
  assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 1
  assert [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['1']
  assert run_lock.holder(tmp_path).host == 'elsewhere'
