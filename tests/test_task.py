"""Training knows nothing of what is learned: a task that is no classification goes through all of it."""

import pathlib
import re
import signal

import jax
import numpy as np
import pytest
from mean_colour import STEPS, MeanColour, settings
from run_files import arrays, metric_lines

from ctx_flax.configs import default
from ctx_flax.data import pipeline
from ctx_flax.data.digits import ArraySource
from ctx_flax.tasks import task_of
from ctx_flax.training import check, evaluation, loop, parallel
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.halt import Halt

TASK = MeanColour()
pytestmark = pytest.mark.usefixtures('mean_colour_task')


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  return workdir, loop.train(settings(), workdir, TASK)


def same(a, b, **tolerance):
  assert a.keys() == b.keys() and len(a) > 5
  for name in a:
    np.testing.assert_allclose(a[name], b[name], err_msg=name, **tolerance)


def test_it_trains_and_is_tested_on_every_image_once(whole, capsys):
  workdir, results = whole
  assert results['EMA']['images'] == results['raw']['images'] == 60  # 40 and a batch that is filled up
  lines = metric_lines(workdir)
  assert lines[-1]['test/EMA/correlation'] == results['EMA']['correlation']
  assert lines[-1]['train/loss'] == lines[-1]['train/error'] < lines[0]['train/error']
  assert evaluation.evaluate(settings(), workdir, TASK) == results
  assert f'correlation {results["raw"]["correlation"]:.3f}' in capsys.readouterr().out


def test_a_test_tells_of_its_examples_and_how_far_it_is(whole, monkeypatch, capsys):
  original = MeanColour.open_source

  class Remarks(ArraySource):
    remarks = ('3 of 63 images are not there',)

  def with_remarks(self, config, split):
    source = original(self, config, split)
    return Remarks(**vars(source))

  monkeypatch.setattr(MeanColour, 'open_source', with_remarks)
  evaluation.evaluate(settings(), whole[0], TASK)
  first, *tested = capsys.readouterr().out.splitlines()
  assert first == '3 of 63 images are not there'
  shown = [re.match(r'tested (\d+)/60  \w+  \d+:\d\d left', line) for line in tested]
  counts = [int(match[1]) for match in shown if match]
  assert counts == sorted(set(counts)) and counts[-1] == 60 and len(counts) > 1


def test_it_may_draw_what_the_averaged_weights_did(whole, monkeypatch):
  drawn = []
  draw = lambda self, tally, source, path, config: drawn.append((tally, len(source), path))
  monkeypatch.setattr(MeanColour, 'draw_tested', draw)
  results = loop.train(settings(), whole[0], TASK)  # it is finished: tested once more
  ((tally, images, path),) = drawn
  assert images == 60 and path == whole[0] / 'tested.png'
  assert (
    tally.result({'error': (0.0, 1.0)})['correlation']
    == results['EMA']['correlation']
    != results['raw']['correlation']
  )


def test_killed_and_resumed_it_computes_the_same_bits(whole, tmp_path, monkeypatch):
  original = pipeline.train_batches

  def killing(*args):
    for number, batch in enumerate(original(*args), 1):
      if number == 5:
        raise KeyboardInterrupt
      yield batch

  monkeypatch.setattr(pipeline, 'train_batches', killing)
  with pytest.raises(KeyboardInterrupt):
    loop.train(settings(), tmp_path, TASK)
  monkeypatch.setattr(pipeline, 'train_batches', original)
  assert loop.train(settings(), tmp_path, TASK) == whole[1]
  same(arrays(tmp_path, STEPS), arrays(whole[0], STEPS), rtol=0, atol=0)
  assert metric_lines(tmp_path) == metric_lines(whole[0])


def test_it_keeps_the_best_by_its_own_metric(tmp_path):
  config = settings(eval_every=1, checkpoint_every=0, keep_checkpoints=1, ema_decay=0.0)
  config.optimizer.learning_rate = 1.0  # leads away from the best soon
  loop.train(config, tmp_path, TASK)
  correlation = [line['test/raw/correlation'] for line in metric_lines(tmp_path)]
  with Checkpoints(tmp_path / 'checkpoints', read_only=True, metric='correlation') as checkpoints:
    step, value = checkpoints.best()
    assert value == pytest.approx(max(correlation)) == correlation[step - 1]
    assert set(checkpoints.steps()) == {step, STEPS}
  config.eval.checkpoint = 'best'
  assert evaluation.evaluate(config, tmp_path, TASK)['raw']['correlation'] == pytest.approx(max(correlation))


@pytest.mark.slow
def test_in_parts_it_computes_the_same(whole, tmp_path):
  loop.train(settings(accumulation=2), tmp_path, TASK)
  same(arrays(tmp_path, STEPS), arrays(whole[0], STEPS), rtol=1e-4, atol=1e-6)


def test_on_one_device_it_computes_what_eight_do(whole, tmp_path, monkeypatch):
  one = jax.devices()[:1]
  monkeypatch.setattr(jax, 'devices', lambda *_: one)
  monkeypatch.setattr(jax, 'local_devices', lambda *_: one)
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  results = loop.train(settings(), tmp_path, TASK)
  assert len(parallel.replicate(np.zeros(3)).devices()) == 1
  same(arrays(tmp_path, STEPS), arrays(whole[0], STEPS), rtol=1e-4, atol=1e-6)
  assert results['EMA']['correlation'] == pytest.approx(whole[1]['EMA']['correlation'], rel=1e-4)


def test_the_folder_of_a_run_may_begin_with_the_home(whole, monkeypatch):
  monkeypatch.setenv('HOME', str(whole[0].parent))
  assert evaluation.evaluate(settings(), '~/run', TASK) == whole[1]
  assert loop.train(settings(), '~/run', TASK) == whole[1]  # it is finished
  with pytest.raises(Halt, match='holds a run of another config: seed is 0 there and 1 here'):
    config = settings()
    config.seed = 1
    check.check(config, '~/run', TASK)


def test_check_plans_it(whole, tmp_path, capsys):
  summary = check.check(settings(), tmp_path, TASK)
  assert summary['parameters'] == 27 * 3 + 3 and summary['steps'] == STEPS
  assert '84 parameters' in capsys.readouterr().out and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_stopped_in_a_test_it_does_that_test_first(whole, tmp_path, monkeypatch):
  """SIGTERM after the first of two batches of the test of step 4."""
  original, tests = pipeline.eval_batches, []

  def stopping(*args):
    tests.append(0)
    for batch in original(*args):
      yield batch
      if len(tests) == 2:
        signal.raise_signal(signal.SIGTERM)

  monkeypatch.setattr(pipeline, 'eval_batches', stopping)
  with pytest.raises(Halt, match='stopped by SIGTERM at step 4, saved in'):
    loop.train(settings(), tmp_path, TASK)
  monkeypatch.setattr(pipeline, 'eval_batches', original)
  assert metric_lines(tmp_path)[-1]['step'] == 3
  assert loop.train(settings(), tmp_path, TASK) == whole[1]
  assert metric_lines(tmp_path) == metric_lines(whole[0])
  assert not (tmp_path / 'pending_test.json').exists()


def test_a_task_that_does_not_exist_is_refused():
  config = default.get_config()
  config.task = 'clasification'
  with pytest.raises(ValueError, match="unknown task 'clasification'; did you mean 'classification'"):
    task_of(config)


def test_training_knows_no_words_of_classification():
  folder = pathlib.Path(loop.__file__).parent
  words = re.compile('label|accuracy|alpha', re.IGNORECASE)
  uses = [
    f'{path.name}: {line.strip()}'
    for path in sorted(folder.glob('*.py'))
    for line in path.read_text().splitlines()
    if words.search(line)
  ]
  assert uses == []
