"""The command that prepares data sets, as far as it goes without TensorFlow and the network."""

import importlib.util
import os
import subprocess
import sys

import pytest

from ctx_flax.data import prepare


@pytest.fixture
def tensorflow(monkeypatch):
  """Sets whether TensorFlow is said to be installed."""
  original = importlib.util.find_spec

  def pretend(installed):
    found = lambda name, *a: object() if installed else None
    monkeypatch.setattr(
      importlib.util, 'find_spec', lambda name, *a: (found if name == 'tensorflow' else original)(name, *a)
    )

  return pretend


def test_help_tells_what_to_type_and_where_imagenet_comes_from(capsys):
  with pytest.raises(SystemExit) as ended:
    prepare.main(['--help'])
  told = ' '.join(capsys.readouterr().out.split())
  assert ended.value.code == 0
  for part in (
    'usage: python -m ctx_flax.data.prepare',
    'BUILDER [--data_dir=DATA_DIR]',
    'ILSVRC2012_img_train.tar',
    'ILSVRC2012_img_val.tar',
    'DATA_DIR/downloads/manual',
    'pip install tensorflow',
    'imagenet2012, cars196 or caltech_birds2011',
    'by default ~/tensorflow_datasets',
  ):
    assert part in told, part


def test_a_data_set_must_be_named(capsys):
  with pytest.raises(SystemExit) as ended:
    prepare.main([])
  assert ended.value.code == 2 and 'required: builder' in capsys.readouterr().err


def test_missing_tensorflow_is_told(tensorflow):
  tensorflow(installed=False)
  with pytest.raises(SystemExit, match=r'^error: preparing needs TensorFlow, .*: pip install tensorflow$'):
    prepare.main(['imagenet2012'])


def test_an_unknown_data_set_is_told(tensorflow, tmp_path):
  tensorflow(installed=True)
  with pytest.raises(SystemExit, match=r"^error: tensorflow_datasets has no data set 'imagenet2011'$"):
    prepare.main(['imagenet2011', f'--data_dir={tmp_path}'])


def test_the_module_is_a_program():
  run = subprocess.run(
    [sys.executable, '-m', 'ctx_flax.data.prepare', '--help'],
    env=os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)},
    capture_output=True,
    text=True,
    timeout=100,
  )
  assert (run.returncode, run.stderr) == (0, '') and 'imagenet2012' in run.stdout
