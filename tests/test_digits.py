"""The digits: divided by the seed, in proportion, and as the recipe's mean and deviation say."""

import collections

import numpy as np
import pytest

from configs import digits
from ctx_flax.data import sources


@pytest.fixture
def data():
  return digits.get_config().data


def opened(data, split):
  return sources.open_source(data, split)


def test_they_are_divided_by_the_seed(data):
  train, test = opened(data, 'train'), opened(data, 'test')
  assert (len(train), len(test)) == (1437, 360)
  # Nothing is in both.
  train_images = {image.tobytes() for image in train.images}
  assert not any(image.tobytes() in train_images for image in test.images)
  np.testing.assert_array_equal(opened(data, 'test').images, test.images)
  data.split_seed = 1
  assert not np.array_equal(opened(data, 'test').labels, test.labels)


def test_every_digit_is_tested_in_proportion(data):
  """About 36 of 360."""
  counts = collections.Counter(opened(data, 'test').labels.tolist())
  assert sorted(counts) == list(range(10)) and 33 < min(counts.values()) <= max(counts.values()) < 39


def test_the_test_part_has_the_size_that_is_asked_for(data):
  data.test_images = 100
  assert (len(opened(data, 'train')), len(opened(data, 'test'))) == (1697, 100)


@pytest.mark.parametrize('size', [8, 32])
def test_ink_is_bright_on_black(data, size):
  """Values 0 to 255, one channel; the border of the paper is 0, and 8x8 is scikit-learn's own image."""
  data.image_size = size
  source = opened(data, 'train')
  assert source.images.shape == (1437, size, size, 1) and source.images.dtype == np.uint8
  assert source.images.max() == 255 and np.median(source.images[:, :, 0]) == 0
  if size == 8:
    from sklearn.datasets import load_digits

    originals = {(np.rint(image * 255 / 16).astype(np.uint8)).tobytes() for image in load_digits().images}
    assert all(image.tobytes() in originals for image in source.images)


def test_the_recipe_has_their_mean_and_deviation(data):
  pixels = opened(data, 'train').images / 255
  np.testing.assert_allclose([pixels.mean(), pixels.std()], [*data.mean, *data.std], atol=1e-3)


def test_what_a_source_tells(data):
  source = opened(data, 'test')
  assert source.num_classes == 10 and source.class_names == tuple('0123456789')
  assert source.name(7) == 'test[7]'
  element = source[7]
  np.testing.assert_array_equal(element['image'], source.images[7], strict=True)
  assert element['label'] == source.labels[7] and type(element['label']) is int


@pytest.mark.parametrize('test_images', [0, 9, 1788, 1797])
def test_a_part_too_small_for_ten_digits_is_refused(data, test_images):
  data.test_images = test_images
  with pytest.raises(ValueError, match=f'data.test_images is {test_images}: of 1797 .*10 and at most 1787'):
    opened(data, 'test')
