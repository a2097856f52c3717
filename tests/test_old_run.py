"""Runs that earlier versions began go on: fields that their config.json lacks have their defaults.

old_run.zip is the folder of a run of version 0.1, stopped by SIGTERM at step 5 of 6: a plain network of
width 4 on digits, which knew neither config.task nor optimizer.name.
"""

import json
import pathlib
import zipfile

import pytest

from ctx_flax.configs import saved
from ctx_flax.tasks import run
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.halt import Halt


@pytest.fixture
def old_run(tmp_path):
  with zipfile.ZipFile(pathlib.Path(__file__).parent / 'old_run.zip') as archive:
    archive.extractall(tmp_path / 'run')
  return tmp_path / 'run'


@pytest.mark.slow
def test_it_resumes_to_what_that_version_computed(old_run, capsys):
  assert 'task' not in json.loads((old_run / 'config.json').read_text())
  results = run.train(saved.get_config(str(old_run)), old_run)
  assert 'resumed at step 5' in capsys.readouterr().out
  assert results['EMA']['loss'] == pytest.approx(2.2837926228841146, rel=1e-5)
  lines = [json.loads(line) for line in (old_run / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines] == [1, 2, 3, 4, 5, 6]
  assert lines[0].keys() == lines[5].keys()
  assert lines[5]['train/loss'] == pytest.approx(2.2927298545837402, rel=1e-5)
  assert json.loads((old_run / 'config.json').read_text())['task'] == 'classification'
  # The best of the earlier version's steps stays, the newest two as always.
  with Checkpoints(old_run / 'checkpoints', read_only=True, metric='accuracy') as checkpoints:
    assert checkpoints.steps() == [2, 5, 6] and checkpoints.best()[0] == 2


def test_its_best_is_evaluated(old_run):
  config = saved.get_config(str(old_run))
  config.eval.checkpoint = 'best'
  results = run.evaluate(config, old_run)
  assert results['EMA']['accuracy'] == pytest.approx(0.10833333333333334, abs=1e-6)
  assert results['EMA']['loss'] == pytest.approx(2.2917434692382814, rel=1e-5)


def test_a_field_that_it_lacks_is_compared_with_its_default(old_run):
  config = saved.get_config(str(old_run))
  config.task = 'no_such_task'
  with pytest.raises(Halt, match='unknown task'):
    run.train(config, old_run)
