"""Batches of images with objects: what is documented, from any step, by any workers and processes."""

import pickle

import numpy as np
import pytest
from coco_files import SIZES, detection_config, evaluate, opened, train, write_many
from image_batches import assert_same, column

from ctx_flax.data import batches, detection_pipeline, elements
from ctx_flax.data.decode import BadImage


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return write_many(tmp_path_factory.mktemp('coco'))


@pytest.fixture
def config(root):
  config = detection_config()
  config.data.path = str(root)
  return config


@pytest.fixture
def damaged(config, tmp_path):
  """A copy of the set; and a function that damages images of both splits by their numbers."""
  write_many(tmp_path)
  config.data.path = str(tmp_path)

  def damage(*numbers):
    for number in numbers:
      for split in ('train2017', 'val2017'):
        path = tmp_path / split / f'{number:03d}.png'
        path.write_bytes(path.read_bytes()[:60])

  return damage


def types(batch):
  return {name: (x.dtype.name, x.shape) for name, x in batch.items()}


def test_types_and_shapes_are_those_that_are_documented(config):
  taken = train(opened(config), config, 12)
  for batch in taken:
    h, w = batch['image'].shape[1:3]
    assert (h, w) in {(64, 64), (64, 96), (96, 64)}
    assert types(batch) == {
      'image': ('uint8', (4, h, w, 3)),
      'image_hw': ('int32', (4, 2)),
      'original_hw': ('int32', (4, 2)),
      'scale': ('float32', (4, 2)),
      'index': ('int32', (4,)),
      'boxes': ('float32', (4, 5, 4)),
      'labels': ('int32', (4, 5)),
      'masks': ('uint8', (4, 5, h, w // 8)),
      'weight': ('float32', (4,)),
      'bad': ('int32', (4,)),
    }
    assert (batch['image_hw'] <= (h, w)).all() and (batch['weight'] == 1).all()
  assert len({batch['image'].shape for batch in taken}) > 1
  assert (column(taken, 'labels') >= 0).sum() > 50


def test_images_are_used_equally_often(config):
  """But for the few that wait for a batch of their canvas."""
  taken = train(opened(config), config, 25)
  counts = np.bincount(column(taken, 'index'), minlength=10)
  assert counts.sum() == 100 and counts.min() >= 8 and counts.max() <= 12
  originals = column(taken, 'original_hw')
  np.testing.assert_array_equal(originals, np.array(SIZES)[column(taken, 'index')])


def test_batches_follow_from_seed_and_step(config):
  taken = train(opened(config), config, 9)
  for start in (1, 2, 5, 8):
    assert_same(train(opened(config), config, 9 - start, start), taken[start:])
  config.seed = 1
  assert any(
    not np.array_equal(a['index'], b['index'])
    for a, b in zip(train(opened(config), config, 3), taken, strict=False)
  )


@pytest.mark.parametrize(
  'threads, workers', [(3, 0), pytest.param(1, 2, marks=pytest.mark.slow, id='worker processes')]
)
def test_batches_do_not_depend_on_who_makes_them(config, threads, workers):
  source = opened(config)
  taken, tests = train(source, config, 6, 2), evaluate(opened(config, 'test'), config)
  config.data.update(threads=threads, workers=workers)
  assert_same(train(source, config, 6, 2), taken)
  assert_same(evaluate(opened(config, 'test'), config), tests)


def test_what_makes_rows_is_sent_to_worker_processes(config, monkeypatch):
  """It makes the same rows there, and is small."""
  made = []
  monkeypatch.setattr(batches, 'planned_batches', lambda element, *_: made.append(element))
  monkeypatch.setattr(batches, 'eval_batches', lambda element, *_: made.append(element))
  detection_pipeline.train_batches(opened(config), config)
  detection_pipeline.eval_batches(opened(config, 'test'), config)
  for element, rows in zip(made, ((40, 3, 17), (0, 5, 11)), strict=True):
    pickled = pickle.dumps(element)
    copy = pickle.loads(pickled)
    assert_same([copy(row) for row in rows], [element(row) for row in rows])
    assert len(pickled) < 6000


def test_processes_make_the_rows_of_one_batch(config):
  parts = [train(opened(config), config, 5, 0, process, 2) for process in range(2)]
  for whole, *halves in zip(train(opened(config), config, 5), *parts, strict=True):
    assert_same([{name: np.concatenate([half[name] for half in halves]) for name in whole}], [whole])
  tests = [evaluate(opened(config, 'test'), config, process, 2) for process in range(2)]
  for whole, *halves in zip(evaluate(opened(config, 'test'), config), *tests, strict=True):
    assert_same([{name: np.concatenate([half[name] for half in halves]) for name in whole}], [whole])


def test_a_test_has_every_image_once_resized_to_one_length(config):
  taken = evaluate(opened(config, 'test'), config)
  images = column(taken, 'index')
  assert sorted(images[images >= 0]) == list(range(10))
  np.testing.assert_array_equal(column(taken, 'weight'), images >= 0)
  assert (column(taken, 'image_hw')[images >= 0].min(axis=-1) == 48).all()
  assert set(taken[0]) == {'image', 'image_hw', 'original_hw', 'scale', 'index', 'weight', 'bad'}
  assert {batch['image'].shape for batch in taken} == {(4, 64, 64, 3), (4, 64, 96, 3), (4, 96, 64, 3)}
  later = evaluate(opened(config, 'test'), config, 0, 1, 2)
  assert_same(later, taken[2:])


def test_a_bad_image_is_replaced_by_one_that_fits(config, damaged):
  """The next of the good ones; the others stay where they were."""
  before = train(opened(config), config, 12)
  damaged(3, 4)
  after = train(opened(config), config, 12)
  for whole, batch in zip(before, after, strict=True):
    bad = np.isin(whole['index'], (2, 3))
    np.testing.assert_array_equal(batch['bad'], np.where(bad, whole['index'], -1))
    assert not np.isin(batch['index'], (2, 3)).any() and (batch['weight'] == 1).all()
    assert batch['image'].shape == whole['image'].shape
    assert_same(
      [{name: x[~bad] for name, x in batch.items()}], [{name: x[~bad] for name, x in whole.items()}]
    )
  assert (column(after, 'bad') >= 0).sum() > 5
  assert_same(train(opened(config), config, 3, 9), after[9:])


def test_a_bad_image_weighs_nothing_in_a_test(config, damaged):
  damaged(3, 4)
  taken = evaluate(opened(config, 'test'), config)
  images = column(taken, 'index')
  assert sorted(images[images >= 0]) == [0, 1, 4, 5, 6, 7, 8, 9]
  assert sorted(column(taken, 'bad'))[-2:] == [2, 3]
  np.testing.assert_array_equal(column(taken, 'weight'), images >= 0)


def test_bad_images_are_named(config, damaged, monkeypatch):
  damaged(*range(1, 11))
  message = r'^\d+ images? in a row from 0\d\d\.png on cannot be read: check data\.path; the first: '
  with pytest.raises(BadImage, match=message):
    train(opened(config), config, 1)
  monkeypatch.setattr(elements, 'BAD_IN_A_ROW', 3)
  with pytest.raises(BadImage, match=r'^3 images in a row from '):
    train(opened(config), config, 1)
  config.data.on_bad_image = 'error'
  with pytest.raises(BadImage, match=r'^0\d\d\.png cannot be read: .*; data\.on_bad_image=skip goes on'):
    train(opened(config), config, 1)
  assert detection_pipeline.describe_bad(opened(config), 4, config).startswith('005.png: ')


def test_a_bad_image_is_described(config, damaged, root):
  source = opened(config)
  assert detection_pipeline.describe_bad(source, 1, config) == '002.png: can be read now'
  file = source.annotation_file
  with open(file, 'a') as text:
    text.write(' ')
  assert (
    detection_pipeline.describe_bad(source, 1, config) == f'002.png: {file} was changed after it was read'
  )


def test_a_canvas_that_is_too_small_names_the_image(config):
  source = opened(config)
  config.data.canvases = ((64, 64),)
  for make, split in (
    (detection_pipeline.train_batches, 'train'),
    (detection_pipeline.eval_batches, 'test'),
  ):
    with pytest.raises(
      ValueError, match=r'^0\d\d\.png may get \d+ x \d+ pixels .* data\.canvases are 64 x 64'
    ):
      make(source, config)
    with pytest.raises(ValueError, match=r'^0\d\d\.png may get'):
      detection_pipeline.check_canvases(source, config, split)
  config.data.update(long_side=64, scales=(32,), crop_scales=(32,), crop_sides=(32, 32))
  config.eval.short_side = 32
  train(source, config, 1)
  evaluate(source, config)


@pytest.mark.parametrize(
  'path, value, message',
  [
    ('train.batch_size', 0, 'train.batch_size must be 1 or more, but is 0'),
    ('data.on_bad_image', 'ignore', r"data.on_bad_image must be one of \('skip', 'error'\), but is 'ignore'"),
    ('data.flip', 2.0, 'data.flip must be a probability, 0 to 1, but is 2.0'),
    ('data.crop_probability', -1.0, 'data.crop_probability must be a probability, 0 to 1, but is -1.0'),
    ('data.max_objects', 0, 'data.max_objects must be 1 or more, but is 0'),
    ('data.scales', (), r'data.scales must be 1 to data.long_side=96, but are \(\)'),
    ('data.scales', (32, 100), r'data.scales must be 1 to data.long_side=96, but are \(32, 100\)'),
    ('data.crop_scales', (0,), r'data.crop_scales must be 1 to data.long_side=96, but are \(0,\)'),
    ('data.crop_sides', (40, 24), r'data.crop_sides must be \(least, largest\), but is \(40, 24\)'),
    (
      'data.canvases',
      ((60, 64),),
      r'data.canvases must be \(short, long\) sides, multiples of 32, but is \(\(60',
    ),
    ('eval.short_side', 100, 'eval.short_side must be 1 to data.long_side=96, but is 100'),
    ('data.std', (0.0,), r'data.std must be above 0, but is \(0.0,\)'),
  ],
)
def test_wrong_settings_are_named(config, path, value, message):
  config.update_from_flattened_dict({path: value})
  for make in (detection_pipeline.train_batches, detection_pipeline.eval_batches):
    with pytest.raises(ValueError, match=f'^{message}'):
      make(opened(config), config)


def test_processes_must_share_a_batch(config):
  with pytest.raises(ValueError, match=r'^train\.batch_size is 4: it must be a multiple of the 3 processes'):
    detection_pipeline.train_batches(opened(config), config, 0, 0, 3)
