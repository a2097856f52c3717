"""The command that prepares data sets, as far as it goes without TensorFlow and the network."""

import importlib.util
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest

from configs import default
from ctx_flax.data import made_folders, prepare, sources
from ctx_flax.data.decode import open_image


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


def written(folder):
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*.png')}


GLYPHS = ['--classes=12', '--images_per_class=3', '--image_size=9', '--split_seed=4']


def test_a_set_as_a_folder_is_the_set(tmp_path, capsys):
  """The same pixels and labels as the source that draws them, read by what the command says."""
  folder = tmp_path / 'it\'s a ["folder"]'
  prepare.main(['glyphs', str(folder), *GLYPHS])
  told = capsys.readouterr().out
  data = default.get_config().data
  options = dict(
    option.removeprefix('--config.data.').split('=') for option in shlex.split(told.split(': ', 1)[1])
  )
  data.update(options | {'image_size': int(options['image_size'])})
  assert (data.name, data.path, data.image_size) == ('image_folder', str(folder), 9)
  drawn = default.get_config().data
  drawn.update(name='glyphs', classes=12, images_per_class=3, image_size=9, split_seed=4)
  for split in sources.SPLITS:
    read, made = sources.open_source(data, split), sources.open_source(drawn, split)
    assert (len(read), read.num_classes) == (len(made), 12)
    found = [read[i] for i in range(len(read))]
    found = {(element['label'], np.asarray(open_image(element)).tobytes()) for element in found}
    assert found == {(made[i]['label'], made[i]['image'].tobytes()) for i in range(len(made))}
    assert read.remarks == ()


def test_a_command_that_was_killed_goes_on(tmp_path, monkeypatch):
  prepare.main(['glyphs', str(tmp_path / 'whole'), *GLYPHS])
  whole, original = written(tmp_path / 'whole'), os.replace

  def killed(part, path):
    if len(written(tmp_path / 'cut')) == 7:
      raise KeyboardInterrupt
    original(part, path)

  monkeypatch.setattr(os, 'replace', killed)
  with pytest.raises(SystemExit, match='the same command goes on'):
    prepare.main(['glyphs', str(tmp_path / 'cut'), *GLYPHS])
  monkeypatch.setattr(os, 'replace', original)
  begun = written(tmp_path / 'cut')
  assert len(begun) == 7 and begun.items() <= whole.items()
  old = {path: path.stat().st_mtime_ns for path in (tmp_path / 'cut').rglob('*.png')}
  prepare.main(['glyphs', str(tmp_path / 'cut'), *GLYPHS])
  assert written(tmp_path / 'cut') == whole and len(whole) == 48
  assert all(path.stat().st_mtime_ns == time for path, time in old.items())


def test_a_folder_of_something_else_is_left_alone(tmp_path):
  (tmp_path / 'file').touch()
  prepare.main(['glyphs', str(tmp_path / 'set'), *GLYPHS])
  before = written(tmp_path)
  for folder, options, message in (
    (tmp_path, GLYPHS, 'holds other files: give a new or an empty folder'),
    (tmp_path / 'file', GLYPHS, 'file is not a folder'),
    (tmp_path / 'file' / 'in', GLYPHS, r'Not a directory: .*in'),
    (tmp_path / 'set', GLYPHS[1:], 'holds a set of other settings'),
    (tmp_path / 'new', ['--classes=1'], r'data\.classes is 1: glyphs has 2 to'),
  ):
    with pytest.raises(SystemExit, match=f'^error: .*{message}'):
      prepare.main(['glyphs', str(folder), *options])
  assert written(tmp_path) == before and not (tmp_path / 'new').exists()


def test_every_set_has_a_line_of_help(capsys):
  with pytest.raises(SystemExit):
    prepare.main(['--help'])
  told = capsys.readouterr().out
  for name in prepare.COMMANDS:
    assert f'prepare {name} DIR' in told
  with pytest.raises(SystemExit) as ended:
    prepare.main(['patches'])
  assert ended.value.code == 2 and 'required: DIR' in capsys.readouterr().err


@pytest.mark.parametrize(
  'label, name, folder',
  [
    (3, '3', '3'),
    (7, 'cat 84,168', '7-cat_84_168'),
    (0, 'A', '0-A'),
    (9, '/', '9-U002F'),
    (9, 'é', '9-U00E9'),
  ],
)
def test_folders_of_classes_have_names_that_every_file_system_takes(label, name, folder):
  assert made_folders.class_folder(label, name, 10) == folder
  assert made_folders.class_folder(label, name, 1000) == f'00{label}-{folder.partition("-")[2] or label}'
