"""Batches follow from the seed and the step alone, and use every image equally often."""

import numpy as np
import pytest
from image_batches import (
  IMAGES,
  Numbered,
  assert_same,
  column,
  evaluate,
  full_config,
  opened,
  plain_config,
  train,
)

from ctx_flax.data import pipeline, transforms
from ctx_flax.data.digits import ArraySource


@pytest.fixture
def config():
  return plain_config()


@pytest.fixture
def full(small_jpegs):
  return full_config(small_jpegs)


def test_every_epoch_has_every_image_once_in_an_order_of_its_own(config):
  """Six epochs of ten images in ten batches: most hold the end of one and the start of the next."""
  batches = train(Numbered(), config, 10)
  epochs = column(batches, 'label').reshape(6, 10)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(10), (6, 1)))
  assert len({tuple(epoch) for epoch in epochs}) == 6
  np.testing.assert_array_equal(column(batches, 'image')[:, 0, 0, 0], epochs.ravel())
  config.seed = 1
  assert not np.array_equal(column(train(Numbered(), config, 10), 'label').reshape(6, 10), epochs)


def test_types_and_shapes_are_those_that_are_documented(full):
  (batch,) = train(opened(full), full, 1)
  assert {name: (x.dtype.name, x.shape) for name, x in batch.items()} == {
    'image': ('float32', (12, 24, 24, 3)),
    'label': ('int32', (12,)),
    'weight': ('float32', (12,)),
    'bad': ('int32', (12,)),
    'other_label': ('int32', (12,)),
    'lam': ('float32', (12,)),
  }
  assert batch['weight'].tolist() == [1] * 12 and batch['bad'].tolist() == [-1] * 12
  full.data.update(mixup=0.0, cutmix=0.0)
  (batch,) = train(opened(full), full, 1)
  assert sorted(batch) == ['bad', 'image', 'label', 'weight']


def test_the_whole_augmentation_follows_from_seed_and_step(full):
  batches = train(opened(full), full, 4)
  assert_same(train(opened(full), full, 4), batches)
  assert len({batch['image'].tobytes() for batch in batches}) == 4
  full.seed = 1
  for batch, other in zip(batches, train(opened(full), full, 4), strict=True):
    assert not np.array_equal(batch['image'], other['image'])
    assert not np.array_equal(batch['lam'], other['lam'])


@pytest.mark.parametrize(
  'change',
  [
    {'crop_scale': ()},
    {'flip': 0.0},
    {'rotate': 10.0},
    {'rand_augment.operations': 0},
    {'erasing': 0.0},
    {'mixup': 0.0},
    {'cutmix': 0.0},
    {'mix_probability': 0.0},
    {'mix_switch': 0.0},
    {'mix_switch': 1.0},
    {'crop_aspect': (1.0, 1.0)},
    {'rand_augment.magnitude': 1.0},
    {'rand_augment.magnitude_std': 0.0},
    {'rand_augment.probability': 1.0},
    {'mean': (0.5,)},
  ],
  ids=lambda change: next(iter(change)),
)
def test_every_setting_of_the_augmentation_changes_batches(full, change):
  """Ten of them: some are mixed by mixup and some by cutmix."""
  full.train.batch_size = 4
  source = opened(full)
  before = column(train(source, full, 10), 'image')
  full.data.update_from_flattened_dict(change)
  assert not np.array_equal(column(train(source, full, 10), 'image'), before)


def test_augmentation_differs_between_epochs_and_images(full):
  """Ten epochs of six times the same image: no two of 60 crops are the same."""
  full.train.batch_size = 6
  full.data.update(mixup=0.0, cutmix=0.0)
  image = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), np.uint8)
  same = ArraySource(image.repeat(6, 0), np.arange(6), tuple('012345'))
  images = column(train(same, full, 10), 'image')
  assert len({image.tobytes() for image in images}) == 60


def test_batches_from_a_step_are_those_of_the_whole_run(full):
  """The fifth and the ninth hold the end of an epoch and the start of the next."""
  source = opened(full)
  whole = train(source, full, 9)
  for start in (1, 4, 5, 8):
    assert_same(train(source, full, 9 - start, start), whole[start:])


@pytest.mark.parametrize('threads', [0, 2])
def test_evaluation_sees_every_image_once_and_fills_up(config, threads):
  config.data.threads = threads
  batches = evaluate(Numbered(10), config)
  assert [batch['image'].shape for batch in batches] == [(4, 4, 4, 3)] * 3
  assert column(batches, 'weight').tolist() == [1] * 10 + [0] * 2
  assert column(batches, 'label').tolist() == [*range(10), 0, 0]
  assert column(batches, 'image')[:, 1, 2, 1].tolist() == [*range(10), 0, 0]
  assert column(batches, 'bad').tolist() == [-1] * 12


def test_evaluation_is_the_eval_transform_of_every_image(full):
  source = opened(full, 'test')
  batches, transform = evaluate(source, full), transforms.eval_transform(full)
  for i in range(IMAGES):
    np.testing.assert_array_equal(column(batches, 'image')[i], transform(source[i]))
    assert column(batches, 'label')[i] == source[i]['label'] == i // 25


def test_evaluation_of_fewer_images_than_a_batch(config):
  (batch,) = evaluate(Numbered(3), config)
  assert batch['label'].tolist() == [0, 1, 2, 0] and batch['weight'].tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    ('train.batch_size', 0, 'train.batch_size must be 1 or more, but is 0'),
    ('eval.batch_size', -4, 'eval.batch_size must be 1 or more, but is -4'),
    ('data.threads', -1, 'data.threads must be 0 or more, but is -1'),
    ('data.workers', -2, 'data.workers must be 0 or more, but is -2'),
    ('data.prefetch', -1, 'data.prefetch must be 0 or more, but is -1'),
    ('data.on_bad_image', 'ignore', "data.on_bad_image must be one of .*'skip', 'error'.* is 'ignore'"),
    ('seed', -1, r'seed must be between 0 and 2\*\*32 - 1, but is -1'),
    ('seed', 2**32, r'seed must be between 0 and 2\*\*32 - 1, but is 4294967296'),
    ('data.mean', (0.1, 0.2), 'data.mean must hold 1 or 3 values'),
  ],
)
@pytest.mark.parametrize('make', [pipeline.train_batches, pipeline.eval_batches])
def test_wrong_settings_are_named(config, make, path, value, message):
  config.update_from_flattened_dict({path: value})
  with pytest.raises(ValueError, match=message):
    make(Numbered(), config)
