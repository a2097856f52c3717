"""Batches of clips follow from the seed and the step alone; videos that cannot be read are told as such."""

import contextlib
import errno
import os

import numpy as np
import pytest
from image_batches import assert_same, column
from video_frames import Videos, augmented, clip_config, write_videos

from ctx_flax.data import clip_pipeline, clip_transforms, elements, transforms
from ctx_flax.data.decode import BadImage


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return write_videos(tmp_path_factory.mktemp('videos'))


@pytest.fixture
def config():
  return clip_config()


@pytest.fixture
def full():
  config = augmented(clip_config())
  config.data.update(mixup=0.8, cutmix=1.0)
  return config


def train(source, config, n, *place):
  with contextlib.closing(clip_pipeline.train_batches(source, config, *place)) as batches:
    return [next(batches) for _ in range(n)]


def evaluate(source, config, *place, **options):
  with contextlib.closing(clip_pipeline.eval_batches(source, config, *place, **options)) as batches:
    return list(batches)


def types(batch):
  return {name: (x.dtype.name, x.shape) for name, x in batch.items()}


def test_types_and_shapes_are_those_that_are_documented(root, config):
  (batch,) = train(Videos(root), config, 1)
  rows = {'label': ('int32', (6,)), 'weight': ('float32', (6,)), 'bad': ('int32', (6,))}
  assert types(batch) == {'image': ('uint8', (6, 4, 8, 8, 3)), **rows}
  config.data.mixup = 0.8
  (batch,) = train(Videos(root), config, 1)
  mixed = {'other_label': ('int32', (6,)), 'lam': ('float32', (6,))}
  assert types(batch) == {'image': ('float32', (6, 4, 8, 8, 3)), **rows, **mixed}


def test_every_epoch_has_every_video_once(root, config):
  """Three epochs of ten videos in five batches."""
  epochs = column(train(Videos(root), config, 5), 'label').reshape(3, 10)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(10), (3, 1)))
  assert len({tuple(epoch) for epoch in epochs}) == 3


def test_batches_follow_from_seed_and_step(root, full):
  batches = train(Videos(root), full, 4)
  assert len({batch['image'].tobytes() for batch in batches}) == 4
  assert_same(train(Videos(root), full, 2, 2), batches[2:])
  full.seed = 1
  assert not np.array_equal(train(Videos(root), full, 1)[0]['image'], batches[0]['image'])


@pytest.mark.parametrize('threads, workers', [(2, 0), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_batches_do_not_depend_on_who_makes_them(root, full, threads, workers):
  batches = train(Videos(root), full, 3)
  tests = evaluate(Videos(root), full, views='ten_crop')
  full.data.update(threads=threads, workers=workers)
  assert_same(train(Videos(root), full, 3), batches)
  assert_same(evaluate(Videos(root), full, views='ten_crop'), tests)


def test_processes_make_the_rows_of_one_batch(root, full):
  full.train.batch_size = 8
  parts = [train(Videos(root), full, 2, 0, process, 2) for process in range(2)]
  for whole, *halves in zip(train(Videos(root), full, 2), *parts, strict=True):
    assert_same([{name: np.concatenate([half[name] for half in halves]) for name in whole}], [whole])


def test_mixing_takes_normalised_clips_and_one_rectangle_for_all_frames(root, config):
  config.data.update(mean=(0.5,), std=(0.25,))
  (plain,) = train(Videos(root), config, 1)
  plain = transforms.normalise(plain['image'], (0.5,), (0.25,))
  config.data.cutmix = 1.0
  (mixed,) = train(Videos(root), config, 1)
  neighbours = plain[np.arange(6) ^ 1]
  own, other = ((mixed['image'] == x).all(axis=-1) for x in (plain, neighbours))
  assert (own | other).all() and (own == own[:1, :1]).all() and 0 < own.mean() < 1
  np.testing.assert_allclose(mixed['lam'], own.mean(), atol=1e-6)


@pytest.mark.parametrize('views', clip_transforms.VIEWS)
def test_evaluation_is_the_transform_of_every_video_and_fills_up(root, config, views):
  batches = evaluate(Videos(root), config, views=views)
  transform = clip_transforms.eval_clip_transform(config, views)
  images = column(batches, 'image')
  assert images.shape == (12, *transform.shape) and images.dtype == np.uint8
  for index in range(10):
    np.testing.assert_array_equal(images[index], transform(Videos(root)[index]))
  assert not images[10:].any()
  assert column(batches, 'label').tolist() == [*range(10), 0, 0]
  assert column(batches, 'weight').tolist() == [1] * 10 + [0] * 2


def test_training_evaluates_one_view_whatever_the_test_has(root, config):
  config.eval.views = 'dense'
  assert evaluate(Videos(root), config)[0]['image'].shape == (4, 4, 8, 8, 3)


def test_a_bad_video_is_replaced_in_training_and_left_out_of_a_test(root, config):
  source = Videos(root, bad=(3, 4))
  batches = train(source, config, 5)
  assert sorted(column(batches, 'bad')) == [-1] * 24 + [3] * 3 + [4] * 3
  assert np.bincount(column(batches, 'label')).tolist() == [3, 3, 3, 0, 0, 9, 3, 3, 3, 3]
  tests = evaluate(source, config)
  assert column(tests, 'weight').tolist() == [1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0]
  assert column(tests, 'bad').tolist() == [-1, -1, -1, 3, 4, -1, -1, -1, -1, -1, -1, -1]


def test_messages_call_a_video_a_video(root, config, monkeypatch):
  monkeypatch.setattr(elements, 'BAD_IN_A_ROW', 3)
  with pytest.raises(
    BadImage, match=r'^3 videos in a row from 5\.mp4 on cannot be read: check data\.path; t'
  ):
    train(Videos(root, bad=(5, 6, 7)), config, 10)
  config.data.on_bad_image = 'error'
  with pytest.raises(BadImage, match=r'^3\.mp4 cannot be read: cut short; data\.on_bad_image=skip goes on'):
    train(Videos(root, bad=(3,)), config, 10)


def test_a_bad_video_is_described_by_name_and_reason(root, config):
  source = Videos(root, bad=(3, 4))
  assert clip_pipeline.describe_bad(source, 3, config) == '3.mp4: cut short'
  assert clip_pipeline.describe_bad(source, 4, config) == f'4.mp4: {os.strerror(errno.EIO)}'
  assert clip_pipeline.describe_bad(source, 5, config) == '5.mp4: can be read now'


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    ('train.batch_size', 0, '1 or more, but is 0'),
    ('data.on_bad_image', 'ignore', r"one of \('skip', 'error'\), but is 'ignore'"),
    ('data.flip', 2.0, 'a probability, 0 to 1, but is 2.0'),
    ('data.short_side', -1, r'0 \(off\) or more, but is -1'),
    ('eval.views', 'all', "one of .* but is 'all'"),
  ],
)
@pytest.mark.parametrize('make', [clip_pipeline.train_batches, clip_pipeline.eval_batches])
def test_wrong_settings_are_named(root, config, make, path, value, message):
  config.update_from_flattened_dict({path: value})
  with pytest.raises(ValueError, match=f'^{path} must be {message}'):
    make(Videos(root), config)
