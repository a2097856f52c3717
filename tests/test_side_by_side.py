"""Jobs of an experiment in processes of their own: how many, where, what is left to do, and how they end."""

import json
import os
import signal
import sys
import threading

import pytest

from configs import digits
from ctx_flax.training.halt import Halt
from experiments import child, side_by_side
from experiments.side_by_side import Place

# What stands for experiments.child: it knows no jax and is quick.
HEAD = """
import json, os, pathlib, sys
job, folder, *cores = sys.argv[1:]
folder = pathlib.Path(folder)
def done(**result): (folder / 'result.json').write_text(json.dumps(result))
"""


@pytest.fixture
def as_child(monkeypatch):
  return lambda script: monkeypatch.setattr(side_by_side, 'CHILD', (sys.executable, '-c', HEAD + script))


def configs(*names):
  made = {}
  for seed, name in enumerate(names):
    made[name] = digits.get_config()
    made[name].seed = seed
  return made


def test_each_run_is_done_once_and_in_order(as_child, tmp_path, capsys):
  as_child("done(accuracy=json.loads((folder / 'config.json').read_text())['seed'] / 10, job=job)")
  seen = []
  run = lambda wanted: side_by_side.run_each('train', wanted, tmp_path, [Place()], seen.append)
  first = run(configs('a', 'b/c'))
  assert first == {'a': {'accuracy': 0.0, 'job': 'train'}, 'b/c': {'accuracy': 0.1, 'job': 'train'}}
  assert [list(results) for results in seen] == [['a'], ['a', 'b/c']]
  as_child("done(accuracy=1.0, job='again')")
  assert run(configs('a', 'b/c', 'd')) == first | {'d': {'accuracy': 1.0, 'job': 'again'}}
  out = capsys.readouterr().out
  assert 'train: 1 of 3 to do, 1 at a time' in out and 'train 1 of 1: d, 100.00 %' in out


def test_a_damaged_result_is_made_again(as_child, tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a/result.json').write_text('{"accuracy": 0.')
  as_child('done(accuracy=0.5)')
  assert side_by_side.run_each('train', configs('a'), tmp_path, [Place()]) == {'a': {'accuracy': 0.5}}


def test_places_work_at_the_same_time(as_child, tmp_path):
  # Opening a pipe waits for the other end: neither process ends without the other.
  os.mkfifo(tmp_path / 'pipe')
  as_child("""
reads = folder.name == 'a'
with open(folder.parent / 'pipe', 'r' if reads else 'w') as pipe:
  done(said=pipe.read() if reads else pipe.write('met'), place=os.environ['PLACE'], cores=cores)
""")
  at = [Place({'PLACE': 'first'}), Place({'PLACE': 'second'}, cores=(0, 3))]
  results = side_by_side.run_each('train', configs('a', 'b'), tmp_path, at)
  assert results['a']['said'] == 'met'
  assert sorted((r['place'], r['cores']) for r in results.values()) == [('first', []), ('second', ['0,3'])]


def test_a_failed_job_is_told_and_nothing_else_starts(as_child, tmp_path):
  as_child("""
if folder.name == 'b':
  sys.exit('error: no such picture')
done(accuracy=0.5)
""")
  with pytest.raises(Halt, match=r'train of b failed: error: no such picture \(.*b/log\.txt\)') as caught:
    side_by_side.run_each('train', configs('a', 'b', 'c'), tmp_path, [Place()])
  assert caught.value.status == 1
  assert (tmp_path / 'a/result.json').exists() and not (tmp_path / 'c/result.json').exists()


def test_a_job_without_a_result_failed(as_child, tmp_path):
  as_child('')
  with pytest.raises(Halt, match='it said nothing'):
    side_by_side.run_each('train', configs('a'), tmp_path, [Place()])


def test_a_process_that_cannot_be_started_is_told(tmp_path, monkeypatch):
  monkeypatch.setattr(side_by_side, 'CHILD', (str(tmp_path / 'no program'),))
  with pytest.raises(Halt, match=r'^train of [ab] failed: .*No such file.*no program'):
    side_by_side.run_each('train', configs('a', 'b'), tmp_path, [Place(), Place()])


def test_an_error_ends_the_other_jobs_with_sigterm(as_child, tmp_path):
  as_child("""
import signal
if folder.name == 'b':
  with open(folder.parent / 'pipe') as pipe:  # until the other one is ready
    done(other=pipe.read())
else:
  signal.signal(signal.SIGTERM, lambda *_: (done(saved=True), os._exit(0)))
  with open(folder.parent / 'pipe', 'w') as pipe:
    pipe.write('ready')
  signal.pause()
""")
  os.mkfifo(tmp_path / 'pipe')

  def after(results):
    raise RuntimeError('the table cannot be written')

  with pytest.raises(RuntimeError, match='the table'):
    side_by_side.run_each('train', configs('a', 'b'), tmp_path, [Place(), Place()], after)
  assert json.loads((tmp_path / 'a/result.json').read_text()) == {'saved': True}


def test_a_folder_of_another_run_is_refused(as_child, tmp_path):
  as_child('done(accuracy=0.5)')
  side_by_side.run_each('train', configs('a'), tmp_path, [Place()])
  other = configs('a')
  other['a'].optimizer.learning_rate = 0.5
  with pytest.raises(Halt, match=r'optimizer\.learning_rate is .* there and 0\.5 here'):
    side_by_side.run_each('train', other, tmp_path, [Place()])


def test_shares_of_cores_and_gpus(monkeypatch):
  answer = lambda text: monkeypatch.setattr(
    side_by_side.subprocess, 'run', lambda *_, **__: side_by_side.subprocess.CompletedProcess([], 0, text)
  )
  monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 1, 2, 3, 4}, raising=False)
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  answer('0')
  assert side_by_side.places() == [Place()]
  assert side_by_side.places(2) == [Place(cores=(0, 2, 4)), Place(cores=(1, 3))]
  with pytest.raises(ValueError, match='6 runs side by side need as many processor cores; there are 5'):
    side_by_side.places(6)
  answer('2')
  gpus = [{'CUDA_VISIBLE_DEVICES': '0'}, {'CUDA_VISIBLE_DEVICES': '1'}]
  assert [place.environment for place in side_by_side.places()] == gpus
  shared = side_by_side.places(4)
  assert [place.environment['CUDA_VISIBLE_DEVICES'] for place in shared] == ['0', '1', '0', '1']
  assert {place.environment['XLA_PYTHON_CLIENT_MEM_FRACTION'] for place in shared} == {'0.45'}
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3,5')
  assert [place.environment['CUDA_VISIBLE_DEVICES'] for place in side_by_side.places()] == ['3', '5']
  # Without a way to choose cores, as on macOS, runs share them all.
  monkeypatch.delattr(os, 'sched_getaffinity')
  answer('0')
  assert side_by_side.places(2) == [Place(), Place()]


@pytest.mark.slow
def test_a_run_in_a_process_of_its_own(tmp_path):
  config = digits.get_config()
  config.model.update(name='convnext_mini', depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
  config.train.update(steps=2, batch_size=8, class_counts_warmup=0.0)
  cores = tuple(sorted(os.sched_getaffinity(0)))[:1] if hasattr(os, 'sched_getaffinity') else ()
  results = side_by_side.run_each('train', {'a': config}, tmp_path, [Place(cores=cores)])
  assert 0 <= results['a']['accuracy'] <= 1
  assert 'step 2' in (tmp_path / 'a/log.txt').read_text()


def test_a_child_ends_with_its_parent(monkeypatch):
  reading, writing = os.pipe()
  monkeypatch.setattr(child.os, 'read', lambda _, n, read=os.read: read(reading, n))
  killed = []
  monkeypatch.setattr(child.os, 'kill', lambda *what: killed.append(what))
  thread = threading.Thread(target=child._follow_parent)
  thread.start()
  os.close(writing)  # as the end of the parent does
  thread.join()
  os.close(reading)
  assert killed == [(os.getpid(), signal.SIGTERM)]
