"""Batches are the same whatever threads, workers and processes make them."""

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest
from image_batches import (
  Numbered,
  assert_same,
  column,
  evaluate,
  full_config,
  opened,
  plain_config,
  train,
)

from ctx_flax.data import pipeline
from ctx_flax.data.decode import BadImage


@pytest.fixture
def config():
  return plain_config()


@pytest.fixture
def full(small_jpegs):
  return full_config(small_jpegs)


def have_ended(workers):
  """Those that were told to; a killed process takes a moment to go."""
  workers = list(workers)
  for worker in workers:
    worker.join(10)
  return not any(worker.is_alive() for worker in workers)


def joined(parts):
  """Batches of which several processes made a part each."""
  return [
    {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    for batches in zip(*parts, strict=True)
  ]


@pytest.mark.parametrize('threads', [1, 3])
def test_batches_do_not_depend_on_the_number_of_threads(full, threads):
  source = opened(full)
  batches, tests = train(source, full, 5), evaluate(source, full)
  full.data.threads = threads
  assert_same(train(source, full, 5), batches)
  assert_same(evaluate(source, full), tests)


@pytest.mark.slow
@pytest.mark.parametrize('workers', [1, 2])
def test_batches_do_not_depend_on_worker_processes(full, workers):
  """From a step other than 0; in memory of their own, through signals to workers, which end when closed."""
  source = opened(full)
  batches = train(source, full, 7, 2)
  full.data.update(threads=1, workers=workers)
  before = set(multiprocessing.active_children())
  found = pipeline.train_batches(source, full, 2)
  # One batch of each: only then have all of them started.
  taken = [next(found) for _ in range(workers)]
  started = set(multiprocessing.active_children()) - before
  assert len(started) == workers
  for worker in started:
    os.kill(worker.pid, signal.SIGINT)
    os.kill(worker.pid, signal.SIGTERM)
  taken += [next(found) for _ in range(7 - workers)]
  assert_same(taken, batches)
  assert all(x.flags.owndata for batch in taken for x in batch.values())
  found.close()
  assert have_ended(started)
  for index in range(100):
    with pytest.raises(FileNotFoundError):
      SharedMemory(f'{found._prefix}-{index}')


def test_evaluation_in_worker_processes_sees_every_image_once_too(full):
  """Their number does not divide that of the batches."""
  source = opened(full)
  tests = evaluate(source, full)
  full.data.workers = 2
  assert len(tests) == 13
  assert_same(evaluate(source, full), tests)


@pytest.mark.slow
def test_a_worker_ends_with_its_parent(small_jpegs):
  """The pipe to a killed process stays open as long as a child has it."""
  program = f"""
import os, signal
from ctx_flax.configs import default
from ctx_flax.data import pipeline, sources
if __name__ == '__main__':
  config = default.get_config()
  config.data.update(name='image_folder', path={str(small_jpegs)!r}, workers=1, image_size=8)
  config.train.batch_size = 2
  batches = pipeline.train_batches(sources.open_source(config.data, 'train'), config)
  next(batches)
  print('started', flush=True)
  os.kill(os.getpid(), signal.SIGKILL)
"""
  root = os.path.dirname(os.path.dirname(os.path.abspath(pipeline.__file__)))
  environment = os.environ | {'PYTHONPATH': os.pathsep.join([os.path.dirname(root), *sys.path])}
  run = subprocess.run(
    [sys.executable, '-c', program], env=environment, capture_output=True, text=True, timeout=100
  )
  assert (run.stdout, run.returncode) == ('started\n', -signal.SIGKILL), run.stderr


@pytest.mark.parametrize('processes', [2, 3])
def test_processes_make_the_rows_of_one_batch(full, processes):
  """Mixed as the whole would have been: the parts are even."""
  source = opened(full)
  parts = [train(source, full, 5, 3, process, processes) for process in range(processes)]
  whole = train(source, full, 5, 3)
  assert_same(joined(parts), whole)
  assert len(np.unique(column(whole, 'lam'))) == 5


@pytest.mark.parametrize('length', [8, 9, 12])
def test_processes_make_the_rows_of_one_test(config, length):
  """As many batches each, also where the last one of a process only fills up."""
  parts = [evaluate(Numbered(length), config, process, 2) for process in range(2)]
  assert_same(joined(parts), evaluate(Numbered(length), config))


@pytest.mark.parametrize(
  ('make', 'field'), [(pipeline.train_batches, 'train'), (pipeline.eval_batches, 'eval')]
)
def test_processes_that_cannot_share_a_batch_are_refused(config, make, field):
  size = config[field].batch_size
  with pytest.raises(ValueError, match=f'{field}.batch_size is {size}: it must be a multiple of the 5 proc'):
    make(Numbered(), config, process=0, processes=5)
  with pytest.raises(ValueError, match='process must be between 0 and 1, but is 2'):
    make(Numbered(), config, process=2, processes=2)


def test_mixing_refuses_odd_parts(full):
  with pytest.raises(ValueError, match='a process has 3 of a batch'):
    train(opened(full), full, 1, 0, 0, 4)


def test_a_bad_image_in_a_worker_process_is_told_by_name(full, tmp_path):
  (tmp_path / 'train' / 'a').mkdir(parents=True)
  (tmp_path / 'train' / 'a' / 'empty.jpg').touch()
  full.data.update(path=str(tmp_path), workers=1, on_bad_image='error')
  with pytest.raises(BadImage, match=r'empty\.jpg cannot be read: .*data.on_bad_image=skip'):
    evaluate(opened(full), full)
  assert have_ended(child for child in multiprocessing.active_children() if 'grain' in child.name)
