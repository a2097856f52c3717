"""Data sets of tensorflow_datasets: ImageNet from its two archives, prepared and read back.

What prepares it is tensorflow_datasets itself in a process of its own, with a stand-in for the little that it
asks of TensorFlow there: files, and a type that no value is of.
"""

import io
import os
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from encoded_images import jpeg
from PIL import Image

from ctx_flax.configs import default
from ctx_flax.data import pipeline, sources

STAND_IN = """
import os

__version__ = '2.99.0'


class Tensor:
  pass


class io:
  class gfile:
    exists = os.path.exists
    GFile = open
"""
# Files of a class, by the brightness that they show: what tells them apart when they are read again.
TRAIN = {'n01440764': (10, 20, 30), 'n01491361': (110, 120, 130, 140)}
TEST = (60, 160, 210)
# The labels of the first three files to validate on, which are public: they are not in the archive.
TEST_LABELS = (65, 970, 230)


def archive(file, members):
  """A tar file of {name: bytes}."""
  with tarfile.open(fileobj=file, mode='w') as tar:
    for name, content in members.items():
      entry = tarfile.TarInfo(name)
      entry.size = len(content)
      tar.addfile(entry, io.BytesIO(content))


def prepare(data_dir, *, stand_in):
  """Runs the command as a user would, with TensorFlow's stand-in to be imported."""
  stand_in.mkdir(exist_ok=True)
  (stand_in / 'tensorflow.py').write_text(STAND_IN)
  return subprocess.run(
    [sys.executable, '-m', 'ctx_flax.data.prepare', 'imagenet2012', f'--data_dir={data_dir}'],
    env=os.environ | {'PYTHONPATH': os.pathsep.join([str(stand_in), *sys.path])},
    capture_output=True,
    text=True,
    timeout=200,
  )


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """(data_dir, what the command printed)."""
  data_dir = tmp_path_factory.mktemp('tfds')
  manual = data_dir / 'downloads' / 'manual'
  manual.mkdir(parents=True)
  classes = {}
  for name, values in TRAIN.items():
    file = io.BytesIO()
    archive(file, {f'{name}_{value}.JPEG': jpeg(value) for value in values})
    classes[f'{name}.tar'] = file.getvalue()
  with open(manual / 'ILSVRC2012_img_train.tar', 'wb') as file:
    archive(file, classes)
  with open(manual / 'ILSVRC2012_img_val.tar', 'wb') as file:
    archive(file, {f'ILSVRC2012_val_{i:08}.JPEG': jpeg(value) for i, value in enumerate(TEST, 1)})
  run = prepare(data_dir, stand_in=tmp_path_factory.mktemp('stand_in'))
  assert run.returncode == 0, run.stderr
  return data_dir, run.stdout


@pytest.fixture
def data(prepared):
  data = default.get_config().data
  data.update(name='tfds:imagenet2012', path=str(prepared[0]))
  return data


def opened(data, split='train'):
  return sources.open_source(data, split)


def brightness(element):
  """The brightness of an image, which JPEG keeps to a grey value or two."""
  with Image.open(io.BytesIO(element['encoded'])) as image:
    assert image.format == 'JPEG' and image.size == (20, 16)
    return 10 * round(np.asarray(image).mean() / 10)


def test_the_command_tells_how_to_use_what_it_prepared(prepared):
  data_dir, told = prepared
  assert f'imagenet2012 is prepared in {data_dir}' in told
  assert f'--config.data.name=tfds:imagenet2012 --config.data.path={data_dir}' in told


def test_images_and_labels_come_back(data):
  """The files as they were, undecoded; the class of a training image is its archive's place in the list."""
  train, test = opened(data), opened(data, 'test')
  assert (len(train), len(test)) == (7, 3)
  assert train.num_classes == test.num_classes == 1000
  assert train.class_names[:3] == ('n01440764', 'n01443537', 'n01484850')
  found = sorted((element['label'], brightness(element)) for element in (train[i] for i in range(7)))
  assert found == [(0, value) for value in TRAIN['n01440764']] + [(3, value) for value in TRAIN['n01491361']]
  assert all(type(train[i]['encoded']) is bytes and type(train[i]['label']) is int for i in range(7))
  assert {train[i]['encoded'] for i in range(7)} == {jpeg(v) for values in TRAIN.values() for v in values}
  assert {brightness(test[i]): test[i]['label'] for i in range(3)} == dict(
    zip(TEST, TEST_LABELS, strict=True)
  )


def test_splits_are_those_that_are_asked_for(data):
  assert opened(data, 'test').name(2) == 'validation[2]' and opened(data).name(0) == 'train[0]'
  data.update(train_split='validation', test_split='train')
  assert (len(opened(data)), len(opened(data, 'test'))) == (3, 7)


@pytest.mark.parametrize(
  ('field', 'value', 'split', 'message'),
  [
    (
      'train_split',
      'training',
      'train',
      "data.train_split is 'training', but imagenet2012 has train, validat",
    ),
    ('train_split', 'train[:50%]', 'train', r"data.train_split is 'train\[:50%\]', but imagenet2012 has "),
    ('test_split', 'test', 'test', "data.test_split is 'test', but imagenet2012 has train, validation"),
    (
      'name',
      'tfds:imagenet',
      'train',
      'data.name is tfds:imagenet: tensorflow_datasets has no such data set',
    ),
  ],
)
def test_what_does_not_exist_is_named(data, field, value, split, message):
  data[field] = value
  with pytest.raises(ValueError, match=message):
    opened(data, split)


def test_no_split_to_test_on(data, monkeypatch):
  monkeypatch.setattr('ctx_flax.data.tfds_source.TEST_SPLITS', ('val', 'test'))
  with pytest.raises(ValueError, match=r"data\.test_split is '', but imagenet2012 has train, validation"):
    opened(data, 'test')


@pytest.mark.parametrize('name', ['imagenet2012', 'cars196', 'caltech_birds2011'])
def test_what_is_not_prepared_says_the_command_that_prepares_it(data, tmp_path, name):
  data.update(name=f'tfds:{name}', path=str(tmp_path))
  where = os.path.join(tmp_path, name)
  command = rf'run python -m ctx_flax\.data\.prepare {name} --data_dir={tmp_path} \(--help says'
  with pytest.raises(FileNotFoundError, match=f'^{name} is not prepared in {where}.*: {command}'):
    opened(data)


def test_the_default_folder_is_that_of_tfds(data, monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  data.path = ''
  with pytest.raises(FileNotFoundError, match=r'run python -m ctx_flax\.data\.prepare imagenet2012 \(--help'):
    opened(data)


def test_a_home_folder_is_understood(data, monkeypatch, prepared):
  monkeypatch.setenv('HOME', str(prepared[0].parent))
  data.path = f'~/{prepared[0].name}'
  assert len(opened(data)) == 7


def test_files_without_random_access_are_refused(prepared, data, tmp_path):
  """Prepared by something else as TFRecord, which is the default of tfds."""
  folder = tmp_path / 'imagenet2012' / '5.1.0'
  folder.mkdir(parents=True)
  for file in (prepared[0] / 'imagenet2012' / '5.1.0').iterdir():
    content = file.read_bytes()
    if file.name == 'dataset_info.json':
      content = content.replace(b'array_record', b'tfrecord')
    (folder / file.name.replace('array_record', 'tfrecord')).write_bytes(content)
  data.path = str(tmp_path)
  message = f'^imagenet2012 is prepared in {folder} as tfrecord, .*prepare imagenet2012 --data_dir=ANOTHER'
  with pytest.raises(FileNotFoundError, match=message):
    opened(data)
  run = prepare(tmp_path, stand_in=tmp_path / 'stand_in')
  assert run.returncode == 1
  assert f'error: imagenet2012 is in {folder} already, but as tfrecord: choose another' in run.stderr


def test_a_copy_for_another_process_reads_the_same(data):
  source = opened(data)
  copy = pickle.loads(pickle.dumps(source))
  assert [copy[i] for i in range(7)] == [source[i] for i in range(7)]


@pytest.mark.slow
def test_it_is_read_in_worker_processes_too(data):
  config = default.get_config()
  config.data.update(data.to_dict() | {'image_size': 8, 'threads': 1})
  config.train.batch_size = 6
  source = opened(data)
  batches = []
  for workers in (0, 1):
    config.data.workers = workers
    iterator = pipeline.train_batches(source, config)
    batches.append([next(iterator) for _ in range(3)])
    iterator.close()
  for a, b in zip(*batches, strict=True):
    np.testing.assert_array_equal(a['image'], b['image'])
    np.testing.assert_array_equal(a['label'], b['label'])
  assert {int(label) for batch in batches[0] for label in batch['label']} == {0, 3}


def test_reading_needs_no_tensorflow(data):
  opened(data)[0]
  assert 'tensorflow' not in sys.modules
