"""A signal before, in and after a test: what is owed is done first by the run that goes on."""

import json
import signal

import numpy as np
import pytest
from mean_colour import MeanColour, settings
from run_files import arrays, metric_lines

from ctx_flax.data import pipeline
from ctx_flax.training import loop, pending_test
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.halt import Halt

STEPS, EVERY, BATCHES = 4, 2, 4
TASK = MeanColour()


pytestmark = pytest.mark.usefixtures('mean_colour_task')


def run_config():
  """Four steps with a test of four batches after every second one; only the best and the last are saved."""
  config = settings(steps=STEPS, eval_every=EVERY, checkpoint_every=0)
  config.eval.batch_size = 16
  return config


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  return workdir, loop.train(run_config(), workdir, TASK)


def train(workdir, stop=None):
  """Trains, until SIGTERM comes with batch ('train' or 'test', number): outcome, test batches read."""
  read = {'train': 0, 'test': 0}

  def counted(kind, batches):
    for batch in batches:
      read[kind] += 1
      if stop == (kind, read[kind]):
        signal.raise_signal(signal.SIGTERM)
      yield batch

  of_training, of_test = pipeline.train_batches, pipeline.eval_batches
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pipeline, 'train_batches', lambda *args: counted('train', of_training(*args)))
    patch.setattr(pipeline, 'eval_batches', lambda *args: counted('test', of_test(*args)))
    if stop is None:
      return loop.train(run_config(), workdir, TASK), read['test']
    with pytest.raises(Halt, match='stopped by SIGTERM at step') as stopped:
      loop.train(run_config(), workdir, TASK)
  assert stopped.value.status == 128 + signal.SIGTERM
  return str(stopped.value), read['test']


def best(workdir):
  with Checkpoints(workdir / 'checkpoints', read_only=True, metric=TASK.best) as checkpoints:
    return checkpoints.best()


def test_every_test_is_done_however_often_the_run_is_stopped(whole, tmp_path):
  """Before the test of step 2, twice in it, in that of the last step; in the end nothing has been lost."""
  workdir, results = whole
  for stop, step, batches, lines in (
    (('train', 2), 2, 0, [1]),
    (('test', 3), 2, 3, [1]),
    (('test', 1), 2, 1, [1]),
    (('test', BATCHES + 2), 4, BATCHES + 2, [1, 2, 3]),
  ):
    told, read = train(tmp_path, stop)
    assert told.startswith(f'stopped by SIGTERM at step {step}, saved in {tmp_path}') and read == batches
    assert [line['step'] for line in metric_lines(tmp_path)] == lines
    owed = pending_test.read(tmp_path, step)
    assert owed['epoch'] > 0 and 'train/loss' in owed and 'test/raw/error' not in owed
    with Checkpoints(tmp_path / 'checkpoints', read_only=True, metric=TASK.best) as checkpoints:
      assert checkpoints.latest() == step
  assert train(tmp_path) == (results, BATCHES)
  assert metric_lines(tmp_path) == metric_lines(workdir)
  assert best(tmp_path) == best(workdir)
  expected, resumed = arrays(workdir, STEPS), arrays(tmp_path, STEPS)
  assert expected.keys() == resumed.keys()
  for name in expected:
    np.testing.assert_array_equal(resumed[name], expected[name], strict=True, err_msg=name)
  assert not (tmp_path / pending_test.NAME).exists()


@pytest.mark.slow
def test_a_signal_in_the_last_batch_of_a_test_stops_at_once(whole, tmp_path):
  _, read = train(tmp_path, ('test', BATCHES))
  assert read == BATCHES and [line['step'] for line in metric_lines(tmp_path)] == [1]
  assert train(tmp_path)[0] == whole[1] and metric_lines(tmp_path) == metric_lines(whole[0])


@pytest.mark.slow
def test_a_test_that_was_written_but_is_still_owed_is_written_once(whole, tmp_path, monkeypatch):
  """Killed between the line and the end of what is owed."""
  train(tmp_path, ('train', 2))
  with monkeypatch.context() as patch:
    patch.setattr(pending_test, 'remove', lambda workdir: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      loop.train(run_config(), tmp_path, TASK)
  assert [line['step'] for line in metric_lines(tmp_path)] == [1, 2]
  assert train(tmp_path)[0] == whole[1] and metric_lines(tmp_path) == metric_lines(whole[0])


def test_what_is_owed_to_another_step_or_damaged_is_void(tmp_path):
  pending_test.write(tmp_path, 3, {'epoch': 0.5})
  assert pending_test.read(tmp_path, 3) == {'epoch': 0.5} and pending_test.read(tmp_path, 2) is None
  for damaged in ('{"step": 3', '[]', '{"step": 3}', json.dumps(3)):
    (tmp_path / pending_test.NAME).write_text(damaged)
    assert pending_test.read(tmp_path, 3) is None
  pending_test.remove(tmp_path)
  pending_test.remove(tmp_path)
  assert pending_test.read(tmp_path, 3) is None
