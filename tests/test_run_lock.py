"""The lock of a run's folder: one holder at a time, who renews it, gives it back and notices its loss."""

import os
import threading

import pytest
from lock_files import write_lock
from mean_colour import MeanColour, settings
from run_files import contents

from ctx_flax.training import check, distributed, loop, metric_log, run_lock
from ctx_flax.training.halt import Halt
from ctx_flax.training.run_lock import RunLock


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
    for _ in range(2):  # the first may be of a beat that had begun before
      renewed.clear()
      assert renewed.wait(20)
    assert path.stat().st_mtime > 1
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
