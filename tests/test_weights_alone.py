"""Weights without a run: evaluate, predict and export take them from init.weights."""

import json

import numpy as np
import pixel_family
import pytest
from PIL import Image
from run_files import make_run

from ctx_flax.analysis import failures, figures
from ctx_flax.analysis.predict import predict
from ctx_flax.downstream.export import export
from ctx_flax.models.weights import flatten, load_weights, save_weights
from ctx_flax.tasks import run
from ctx_flax.training import restore
from ctx_flax.training.halt import Halt


@pytest.fixture(scope='module', autouse=True)
def family():
  """What is looked at here hardly depends on the network: one that compiles in no time."""
  with pixel_family.known(), pytest.MonkeyPatch.context() as patch:
    patch.setattr(figures, 'DPI', 40)  # figures at full size take seconds
    yield


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """(a run's folder, a file with its averaged weights)."""
  folder = tmp_path_factory.mktemp('weights')
  config = pixel_family.four_stages()
  workdir = make_run(config, folder / 'run')
  variables, _ = restore.read_weights(workdir).fit(
    restore.restore_network(config, workdir, run.task_of(config), _Ten)[0]
  )
  save_weights(folder / 'w.safetensors', variables)
  return workdir, folder / 'w.safetensors'


class _Ten:
  num_classes = 10


def settings(path):
  config = pixel_family.four_stages()
  config.init.weights = str(path)
  return config


def test_they_are_tested_as_those_of_the_run(weights, tmp_path, capsys):
  workdir, path = weights
  of_run = run.evaluate(settings(''), workdir)
  assert of_run.keys() == {'raw', 'EMA'}
  capsys.readouterr()
  results = run.evaluate(settings(path), tmp_path / 'none')
  assert results.keys() == {'raw'}
  assert results['raw'] == pytest.approx(of_run['EMA'], rel=1e-6)
  assert str(path) in capsys.readouterr().out.splitlines()[-1] and not (tmp_path / 'none').exists()
  # A run in the folder that did not start from them is not meant, one that did is.
  assert run.evaluate(settings(path), workdir).keys() == {'raw'}


def test_they_classify_files(weights, tmp_path):
  workdir, path = weights
  Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)).save(tmp_path / 'a.png')
  config = settings(path)
  config.predict.update(images=str(tmp_path / 'a.png'), format='jsonl', output=str(tmp_path / 'out'))
  (alone,) = predict(config, tmp_path / 'none')
  config.init.weights = ''
  (of_run,) = predict(config, workdir)
  assert alone['classes'][0]['class'] == of_run['classes'][0]['class']
  assert alone['classes'][0]['probability'] == pytest.approx(of_run['classes'][0]['probability'], rel=1e-5)


def test_they_are_exported(weights, tmp_path):
  _, path = weights
  folder = export(settings(path), tmp_path / 'none')
  exported, about = load_weights(folder / 'weights.safetensors')
  saved, _ = load_weights(path)
  assert about['class_names'] == [str(i) for i in range(10)]
  exported = flatten(exported)
  for name, value in flatten(saved).items():
    np.testing.assert_array_equal(exported[name], value, err_msg=name)


def test_what_does_not_fit_or_is_not_there_is_refused(weights, tmp_path):
  config = settings(weights[1])
  config.model.embed_dim = 4
  with pytest.raises(Halt, match=r'these weights do not fit the network: .*class_embedding') as refused:
    run.evaluate(config, tmp_path / 'none')
  assert refused.value.status == 2
  with pytest.raises(Halt, match='nowhere'):
    run.evaluate(settings(tmp_path / 'nowhere.safetensors'), tmp_path / 'none')
  with pytest.raises(Halt, match='no checkpoint'):
    run.evaluate(settings(''), tmp_path / 'none')


def test_they_are_not_analysed_in_the_folder_of_another_run(weights):
  workdir, path = weights
  with pytest.raises(Halt, match=r'is the folder of a run that did not start from .*w\.safetensors: take'):
    failures.failures(settings(path), workdir)
  assert not (workdir / 'analysis').exists()


@pytest.mark.slow
def test_they_are_analysed(weights, tmp_path):
  failures.failures(settings(weights[1]), tmp_path / 'none')
  written = json.loads((tmp_path / 'none' / 'analysis' / 'failures.json').read_text())
  assert written['run'] == 'w.safetensors' and written['images'] == 360
