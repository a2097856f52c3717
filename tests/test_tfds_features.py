"""Data sets of tensorflow_datasets: what of an example is read, and what a classifier needs of it."""

import io

import pytest
from encoded_images import jpeg

from ctx_flax.configs import default
from ctx_flax.data import sources


@pytest.fixture
def data():
  return default.get_config().data


def opened(data):
  return sources.open_source(data, 'train')


def small_data_set(called, data_dir, features, example):
  """Prepares a data set of one example, for which tensorflow_datasets asks nothing of TensorFlow.

  Its class is registered nowhere: reading has the files alone.
  """
  import tensorflow_datasets as tfds

  class OfOne(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = called
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, _):
      return {'train': [(0, example)]}

    def _generate_examples(self):  # abstract, and not called: the examples stand above
      raise AssertionError

  OfOne(data_dir=data_dir, file_format='array_record').download_and_prepare()


def test_what_is_no_classification_is_refused(data, tmp_path):
  from tensorflow_datasets import features

  example = {'image': io.BytesIO(jpeg(0)), 'label': 'black'}
  small_data_set('captions', tmp_path, {'image': features.Image(), 'label': features.Text()}, example)
  data.update(name='tfds:captions', path=str(tmp_path))
  message = '^captions has image, label: a classifier needs an image and a label$'
  with pytest.raises(ValueError, match=message):
    opened(data)


def test_other_images_of_an_example_are_not_decoded(data, tmp_path):
  """Such as the masks of caltech_birds2011: this one could not be."""
  from tensorflow_datasets import features

  kinds = {
    'image': features.Image(),
    'label': features.ClassLabel(names=['black', 'white']),
    'mask': features.Image(),
  }
  example = {'image': io.BytesIO(jpeg(250)), 'label': 'white', 'mask': io.BytesIO(b'no image')}
  small_data_set('masks', tmp_path, kinds, example)
  data.update(name='tfds:masks', path=str(tmp_path))
  source = opened(data)
  assert source.class_names == ('black', 'white')
  assert source[0] == {'encoded': jpeg(250), 'label': 1}
