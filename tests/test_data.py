"""Data: the split, the affine map by hand, and batches that follow from the seed and the step alone."""

import collections
import math

import numpy as np
import pytest

from configs import digits
from ctx_flax.data import pipeline, sources, transforms


@pytest.fixture
def config():
  config = digits.get_config()
  config.train.batch_size = 24
  config.eval.batch_size = 100
  return config


@pytest.fixture(scope='module')
def train_source():
  return sources.open_source(digits.get_config().data, 'train')


class Numbered:
  """A source of ten images that show their index."""

  num_classes = 10

  def __len__(self):
    return 10

  def __getitem__(self, index):
    return {'image': np.full((4, 4, 1), index, np.uint8), 'label': index}


def take(batches, n):
  return [next(batches) for _ in range(n)]


def assert_same(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], strict=True)


def test_digits_are_split_by_the_seed(config, train_source):
  test_source = sources.open_source(config.data, 'test')
  assert (len(train_source), len(test_source)) == (1437, 360)
  assert all(train_source.images.shape[i] == n for i, n in enumerate((1437, 32, 32, 1)))
  # Nothing is in both: no test image equals a training image of the same label.
  train_images = {image.tobytes() for image in train_source.images}
  assert not any(image.tobytes() in train_images for image in test_source.images)
  # Every digit in proportion to its frequency, about 36 of 360.
  counts = collections.Counter(test_source.labels.tolist())
  assert sorted(counts) == list(range(10)) and 33 < min(counts.values()) <= max(counts.values()) < 39
  np.testing.assert_array_equal(sources.open_source(config.data, 'test').images, test_source.images)
  config.data.split_seed = 1
  assert not np.array_equal(sources.open_source(config.data, 'test').labels, test_source.labels)


def test_digits_have_the_mean_and_deviation_of_the_recipe(config, train_source):
  pixels = train_source.images / 255
  np.testing.assert_allclose([pixels.mean(), pixels.std()], [*config.data.mean, *config.data.std], atol=1e-3)


@pytest.mark.parametrize(
  'field, value, message',
  [
    ('name', 'digit', "unknown data.name 'digit'; known: digits"),
    ('test_images', 1797, 'data.test_images is 1797'),
    ('image_size', 0, 'data.image_size must be 1 or more'),
  ],
)
def test_wrong_source(config, field, value, message):
  config.data[field] = value
  with pytest.raises(ValueError, match=message):
    sources.open_source(config.data, 'test')
  with pytest.raises(ValueError, match='split must be one of'):
    sources.open_source(digits.get_config().data, 'validation')


def test_affine_by_hand():
  rng = np.random.default_rng(0)
  for c in (1, 3):
    image = rng.integers(0, 256, (6, 6, c), dtype=np.uint8)
    np.testing.assert_array_equal(transforms.affine(image), image)
    # sin and cos are not exact: a pixel may round to its neighbouring value.
    np.testing.assert_allclose(transforms.affine(image, angle=90).astype(int), np.rot90(image), atol=1)
    down_right = transforms.affine(image, shift=(2, 1))
    np.testing.assert_array_equal(down_right[2:, 1:], image[:-2, :-1])
    assert not down_right[:2].any() and not down_right[:, :1].any()
    # Turned first, shifted then.
    both = transforms.affine(image, angle=90, shift=(1, 0))
    np.testing.assert_allclose(both[1:].astype(int), np.rot90(image)[:-1], atol=1)


def test_affine_enlarges_about_the_centre():
  image = np.zeros((8, 8, 1), np.uint8)
  image[3:5, 3:5] = 200
  large = transforms.affine(image, scale=2.0)
  np.testing.assert_array_equal(large, large[::-1, ::-1])
  assert large[2:6, 2:6].min() > 0 and large.sum(dtype=int) == pytest.approx(
    4 * image.sum(dtype=int), rel=0.01
  )


def test_random_affine_stays_in_its_range(monkeypatch):
  seen = []
  monkeypatch.setattr(transforms, 'affine', lambda image, *arguments: seen.append(arguments) or image)
  image, rng = np.zeros((10, 20, 1), np.uint8), np.random.default_rng(0)
  for _ in range(300):
    transforms.random_affine(image, rng, rotate=10.0, shift=0.1, scale=0.25)
  angle, dy, dx, factor = np.array([(a, *s, f) for a, s, f in seen]).T
  for values, bound in ((angle, 10), (dy, 1), (dx, 2), (np.log(factor), math.log(1.25))):
    assert -bound <= values.min() < -0.95 * bound and 0.95 * bound < values.max() <= bound


def test_normalise():
  image = np.array([[[0], [255]]], np.uint8)
  np.testing.assert_allclose(transforms.normalise(image, (0.5,), (0.25,))[0], [[-2] * 3, [2] * 3])
  colour = np.array([[[0, 255, 51]]], np.uint8)
  result = transforms.normalise(colour, (0.0, 0.5, 0.2), (1.0, 0.5, 0.1))
  np.testing.assert_allclose(result, [[[0, 1, 0]]], atol=1e-6)
  assert result.dtype == np.float32


def test_batches_do_not_depend_on_threads(config, train_source):
  first, *others = (
    take(pipeline.train_batches(train_source, with_threads(config, threads)), 5) for threads in (0, 1, 3)
  )
  for other in others:
    for a, b in zip(first, other, strict=True):
      assert_same(a, b)
  assert first[0]['image'].shape == (24, 32, 32, 3) and first[0]['image'].dtype == np.float32
  assert first[0]['label'].dtype == np.int32 and first[0]['weight'].tolist() == [1] * 24


def with_threads(config, threads):
  config = config.copy_and_resolve_references()
  config.data.threads = threads
  return config


def test_batches_from_a_step_are_those_of_the_whole_run(config, train_source):
  """Over the end of the first epoch (59.9 steps) too."""
  whole = take(pipeline.train_batches(train_source, config), 64)
  for start in (1, 37, 59, 61):
    for a, b in zip(
      whole[start:], take(pipeline.train_batches(train_source, config, start), 64 - start), strict=True
    ):
      assert_same(a, b)


def test_every_epoch_has_every_image_once_in_an_order_of_its_own(config):
  config.data.update(rotate=0.0, shift=0.0, scale=0.0)
  config.train.batch_size = 5
  labels = np.stack([batch['label'] for batch in take(pipeline.train_batches(Numbered(), config), 8)])
  epochs = labels.reshape(4, 10)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(10), (4, 1)))
  assert len({tuple(epoch) for epoch in epochs}) == 4
  config.seed = 1
  other = np.stack([batch['label'] for batch in take(pipeline.train_batches(Numbered(), config), 8)])
  assert not np.array_equal(labels, other)


def test_augmentation_differs_between_epochs_and_images(config):
  config.train.batch_size = 1437
  source = sources.open_source(config.data, 'train')
  same = sources.ArraySource(np.repeat(source.images[:1], 1437, axis=0), source.labels, 10)
  first, second = take(pipeline.train_batches(same, config), 2)
  images = np.concatenate([first['image'], second['image']])
  assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize('threads', [0, 2])
def test_evaluation_sees_every_image_once_and_fills_up(config, threads):
  config.data.threads = threads
  source = sources.open_source(config.data, 'test')
  batches = list(pipeline.eval_batches(source, config))
  assert [batch['image'].shape for batch in batches] == [(100, 32, 32, 3)] * 4
  assert [batch['weight'].sum() for batch in batches] == [100, 100, 100, 60]
  assert batches[-1]['weight'].tolist() == [1] * 60 + [0] * 40
  weight = np.concatenate([batch['weight'] for batch in batches]) == 1
  np.testing.assert_array_equal(np.concatenate([b['label'] for b in batches])[weight], source.labels)
  images = np.concatenate([batch['image'] for batch in batches])[weight]
  np.testing.assert_array_equal(
    images[7], transforms.normalise(source.images[7], config.data.mean, config.data.std)
  )


def test_evaluation_of_fewer_images_than_a_batch(config):
  (batch,) = pipeline.eval_batches(Numbered(), config)
  assert batch['weight'].sum() == 10 and len(batch['label']) == 100


@pytest.mark.parametrize(
  'path, value, message',
  [
    ('train.batch_size', 0, 'train.batch_size must be 1 or more, but is 0'),
    ('data.mean', (0.1, 0.2), 'data.mean must hold 1 or 3 values'),
    ('data.threads', -1, 'data.threads must be 0 or more'),
  ],
)
def test_wrong_settings(config, path, value, message):
  config.update_from_flattened_dict({path: value})
  with pytest.raises(ValueError, match=message):
    pipeline.train_batches(Numbered(), config)
