"""Whole runs in a few steps: resuming bit for bit, stopping, and what a run leaves behind."""

import json
import signal

import numpy as np
import pixel_family
import pytest
from mean_colour import MeanColour, settings
from PIL import Image
from run_files import arrays, contents, metric_lines, on_batch, steps_of
from tiny import STEPS, tiny_config

from ctx_flax.models import MODELS
from ctx_flax.tasks import run
from ctx_flax.training import evaluation, loop, run_folder, running
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.halt import Halt

pytestmark = pytest.mark.usefixtures('mean_colour_task', 'family')

COLOUR = MeanColour()  # for what does not depend on what is learned


def pixel_config():
  """The run of tiny.py with a contextual network of three stages: what a run leaves hardly depends on it."""
  config = tiny_config()
  config.model.update(name='ctx_pixels', depths=(), dims=(), class_counts=(8, 6), drop_path_rate=0.0)
  return config


@pytest.fixture(scope='module')
def family():
  with pytest.MonkeyPatch.context() as patch:
    for name, entry in pixel_family.MODELS.items():
      patch.setitem(MODELS, name, entry)
    yield


@pytest.fixture
def config():
  return pixel_config()


@pytest.fixture(scope='module')
def whole(family, tmp_path_factory):
  """The folder and the results of an uninterrupted run."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  return workdir, run.train(pixel_config(), workdir)


def test_a_run_leaves_its_config_metrics_and_checkpoints(whole, config):
  workdir, results = whole
  assert json.loads((workdir / 'config.json').read_text()) == json.loads(json.dumps(config.to_dict()))
  assert steps_of(workdir) == [4, 6]  # keep_checkpoints is 2
  lines = metric_lines(workdir)
  assert [line['step'] for line in lines] == [1, 2, 3, 4, 5, 6]
  assert lines[-1]['test/EMA/loss'] == results['EMA']['loss'] != results['raw']['loss']
  assert {'train/loss', 'train/accuracy1', 'train/recall3', 'learning_rate', 'epoch'} <= lines[0].keys()
  assert list((workdir / 'events').iterdir())


@pytest.mark.slow
def test_interrupted_and_resumed_is_uninterrupted(tmp_path_factory, tmp_path, monkeypatch):
  """SIGTERM saves where it is (step 3, of no interval); a crash in step 6 goes back to the save of step 4.

  The rest may be done with other threads and worker processes.
  """
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  expected_results = run.train(tiny_config(), workdir)
  config = tiny_config()
  config.data.update(prefetch=0, threads=0)
  before = signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patch:
    on_batch(patch, 3, lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Halt, match=r'stopped by SIGTERM at step 3, saved in .*same command') as stopped:
      run.train(config, tmp_path)
  assert stopped.value.status == 128 + signal.SIGTERM
  assert steps_of(tmp_path) == [2, 3]
  assert signal.getsignal(signal.SIGTERM) is before
  with monkeypatch.context() as patch:
    on_batch(patch, 6, lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      run.train(config, tmp_path)
  assert steps_of(tmp_path) == [3, 4]
  assert signal.getsignal(signal.SIGTERM) is before

  config.data.update(prefetch=2, threads=1, workers=1)
  results = run.train(config, tmp_path)
  assert results == expected_results
  expected, resumed = arrays(workdir, STEPS), arrays(tmp_path, STEPS)
  assert expected.keys() == resumed.keys() and len(expected) > 100
  for name in expected:
    np.testing.assert_array_equal(resumed[name], expected[name], strict=True, err_msg=name)
  assert metric_lines(tmp_path) == metric_lines(workdir)


def test_a_finished_run_started_again_only_evaluates(whole, config, capsys):
  workdir, results = whole
  before = {path: data for path, data in contents(workdir).items() if 'events' not in path.parts}
  config.train.log_every = 3  # what is logged may differ
  assert run.train(config, workdir) == results
  after = contents(workdir)
  config_file = workdir / 'config.json'
  assert all(after[path] == data for path, data in before.items() if path != config_file)
  assert json.loads(after[config_file])['train']['log_every'] == 3
  final = capsys.readouterr().out.splitlines()[-1]
  stages = ' | '.join(f'{100 * results["EMA"][f"accuracy{s}"]:.1f}' for s in (1, 2, 3))
  assert f'EMA: {stages} %' in final and str(workdir) in final


def test_another_config_in_the_folder_is_refused(whole, config):
  workdir, _ = whole
  before = contents(workdir)
  config.optimizer.learning_rate = 0.5
  config.model.class_counts = (9, 8)
  config.data.threads = 0
  with pytest.raises(Halt) as refused:
    run.train(config, workdir)
  message = str(refused.value)
  assert 'optimizer.learning_rate is 0.002 there and 0.5 here' in message
  assert 'model.class_counts is [8, 6] there and [9, 8] here' in message
  assert 'threads' not in message and refused.value.status == 2
  assert contents(workdir) == before


def test_checkpoints_of_an_unknown_config_are_refused(config, tmp_path):
  (tmp_path / 'checkpoints' / '3').mkdir(parents=True)
  with pytest.raises(ValueError, match=r'holds checkpoints but no config\.json'):
    run_folder.check(tmp_path, config)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'train.accumulation': 3}, 'train.accumulation is 3: it must divide the 2 images of a device'),
    ({'model.name': 'convnext_mini', 'train.class_counts_warmup': 0.5}, 'needs a contextual network'),
  ],
)
def test_what_the_step_refuses_leaves_no_folder(tmp_path, fields, message):
  config = tiny_config()
  config.update_from_flattened_dict(fields)
  with pytest.raises(Halt, match=message) as refused:
    run.train(config, tmp_path / 'run')
  assert refused.value.status == 2 and not (tmp_path / 'run').exists()


def test_the_first_batch_is_drawn(whole):
  """16 images of 32 px, enlarged to 128 px, in four columns, each with a line below it."""
  with Image.open(whole[0] / 'augmented.png') as image:
    assert image.size == (4 * 132 + 4, 4 * 148 + 4)


@pytest.mark.slow
def test_the_best_checkpoint_stays_beside_the_newest(tmp_path):
  """The best by the averaged weights, where the run keeps them."""
  config = settings(steps=4, eval_every=1, checkpoint_every=0, keep_checkpoints=1)
  config.optimizer.learning_rate, config.seed = 1.0, 3  # leads away from a good start
  loop.train(config, tmp_path, COLOUR)
  correlation = [line['test/EMA/correlation'] for line in metric_lines(tmp_path)]
  best = correlation.index(max(correlation)) + 1
  assert best < 4
  with Checkpoints(tmp_path / 'checkpoints', read_only=True, metric='correlation') as checkpoints:
    assert checkpoints.best() == (best, pytest.approx(max(correlation)))
    assert checkpoints.steps() == [best, 4]
  config.eval.update(checkpoint='best', weights='EMA')
  results = evaluation.evaluate(config, tmp_path, COLOUR)
  assert results.keys() == {'EMA'} and results['EMA']['correlation'] == pytest.approx(max(correlation))


@pytest.mark.slow
def test_checkpoints_by_time(tmp_path):
  by_time = {'checkpoint_every': 0, 'keep_checkpoints': 10, 'keep_best': False, 'checkpoint_minutes': 1e-9}
  loop.train(settings(eval_every=0, **by_time), tmp_path, COLOUR)
  assert steps_of(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_metrics_are_fetched_only_when_they_are_logged(tmp_path, monkeypatch):
  """And a line holds all steps since the line before."""
  fetched = []
  original = running.fetch_metrics
  loop.train(settings(eval_every=0, checkpoint_every=0), tmp_path / 'every', COLOUR)
  monkeypatch.setattr(
    running, 'fetch_metrics', lambda pending, *a: fetched.append(len(pending)) or original(pending, *a)
  )
  loop.train(settings(log_every=4, eval_every=0, checkpoint_every=0), tmp_path / 'fourth', COLOUR)
  assert fetched == [4, 2]
  every, fourth = metric_lines(tmp_path / 'every'), metric_lines(tmp_path / 'fourth')
  assert [line['step'] for line in fourth] == [4, 6]
  for line, steps in zip(fourth, (every[:4], every[4:]), strict=True):
    np.testing.assert_allclose(line['train/error'], np.mean([of['train/error'] for of in steps]), rtol=1e-6)


def test_evaluate_gives_what_training_gave(whole, config, capsys):
  workdir, results = whole
  assert run.evaluate(config, workdir) == results
  written = capsys.readouterr().out
  for weights in ('raw', 'EMA'):
    assert f'{100 * results[weights]["accuracy3"]:.2f} %' in written
    assert f'{100 * results[weights]["recall3"]:.2f} %' in written


def test_evaluation_counts_every_image_once(whole, config):
  """In batches of 56 the last one is filled up with 32 images of no weight; the optimizer plays no part."""
  workdir, results = whole
  config.eval.batch_size = 56
  config.optimizer.clip_norm = 1.0
  other = run.evaluate(config, workdir)
  for weights in results:
    assert other[weights].keys() == results[weights].keys()
    for name, value in results[weights].items():
      np.testing.assert_allclose(other[weights][name], value, rtol=1e-5, err_msg=name)
    assert other[weights]['accuracy'] * 360 == pytest.approx(
      round(other[weights]['accuracy'] * 360), abs=1e-4
    )


def test_a_checkpoint_that_does_not_fit_is_refused(whole, config, tmp_path):
  config.model.embed_dim = 16
  before = contents(whole[0])
  with pytest.raises(Halt, match=r'checkpoint that does not fit: .*\(10, 8\) float32 instead of') as refused:
    run.evaluate(config, whole[0])
  assert refused.value.status == 2
  assert contents(whole[0]) == before
  with pytest.raises(Halt, match='no checkpoint'):
    run.evaluate(config, tmp_path)


@pytest.mark.slow
def test_without_averaging_there_are_raw_weights_only(tmp_path):
  config = settings(steps=1, ema_decay=0.0)
  results = loop.train(config, tmp_path, COLOUR)
  assert results.keys() == {'raw'} and evaluation.evaluate(config, tmp_path, COLOUR) == results


@pytest.mark.slow
def test_batchnorm_models_train_too(tmp_path):
  config = tiny_config()
  config.model.name = 'resnet_mini'
  config.model.drop_path_rate = 0.0
  config.model.update(dims=(8, 8, 8, 8))
  config.train.steps = 1
  run.train(config, tmp_path)
  names = arrays(tmp_path, 1)
  assert any("['batch_stats']" in name and 'ema' not in name for name in names)
  assert any("['ema']['batch_stats']" in name for name in names)
