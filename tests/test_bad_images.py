"""Images that cannot be read are replaced and marked, left out of a test, or an error."""

import contextlib
import errno
import os

import numpy as np
import pytest
from image_batches import Numbered, column, evaluate, opened, plain_config, train
from PIL import Image

from ctx_flax.data import elements, pipeline
from ctx_flax.data.decode import BadImage


@pytest.fixture
def config():
  return plain_config()


def test_a_bad_image_is_replaced_by_the_next_good_one_and_marked(config):
  """3 and 4 by 5, and the last by the first; all others stand in their places as if nothing were wrong."""
  stands_in = {3: 5, 4: 5, 9: 0}
  good, found = train(Numbered(), config, 10), train(Numbered(bad=tuple(stands_in)), config, 10)
  wanted, label, bad = column(good, 'label'), column(found, 'label'), column(found, 'bad')
  assert label.tolist() == [stands_in.get(index, index) for index in wanted]
  assert bad.tolist() == [index if index in stands_in else -1 for index in wanted]
  np.testing.assert_array_equal(column(found, 'image')[:, 0, 0, 0], label)
  assert column(found, 'weight').min() == 1


@pytest.mark.parametrize('batch_size', [4, 12])
def test_evaluation_leaves_bad_images_out(config, batch_size):
  config.eval.batch_size = batch_size
  batches = evaluate(Numbered(10, bad=(3, 4)), config)
  assert column(batches, 'weight').tolist() == [1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0]
  assert column(batches, 'bad').tolist() == [-1, -1, -1, 3, 4, -1, -1, -1, -1, -1, -1, -1]
  np.testing.assert_array_equal(column(batches, 'image')[3:5], np.zeros((2, 4, 4, 3), np.float32))


@pytest.mark.parametrize('run', [lambda *a: train(*a, 10), lambda *a: evaluate(*a)], ids=['train', 'eval'])
@pytest.mark.parametrize(('index', 'reason'), [(3, 'cut short'), (4, os.strerror(errno.EIO))])
@pytest.mark.parametrize('threads', [0, 2])
def test_a_bad_image_can_be_an_error(config, run, index, reason, threads):
  config.data.update(on_bad_image='error', threads=threads)
  with pytest.raises(BadImage) as caught:
    run(Numbered(bad=(index,)), config)
  message = f'{index}.png cannot be read: {reason}; data.on_bad_image=skip goes on without it'
  assert str(caught.value) == message


def test_many_bad_images_in_a_row_are_an_error(config, monkeypatch):
  with pytest.raises(BadImage, match=r'10 images in a row from \d\.png on cannot be read: check data.path'):
    train(Numbered(bad=tuple(range(10))), config, 1)
  monkeypatch.setattr(elements, 'BAD_IN_A_ROW', 3)
  assert 6 in column(train(Numbered(bad=(4, 5)), config, 10), 'label')
  with pytest.raises(BadImage, match=r'3 images in a row from 4\.png on'):
    train(Numbered(bad=(4, 5, 6)), config, 10)
  # A test counts what it has.
  assert column(evaluate(Numbered(bad=tuple(range(9))), config), 'weight').sum() == 1


def test_a_file_that_is_deleted_or_damaged_meanwhile_is_a_bad_image(config, tmp_path):
  config.data.update(name='image_folder', path=str(tmp_path))
  for i in range(6):
    (tmp_path / 'train' / 'a').mkdir(parents=True, exist_ok=True)
    # Steep enough that JPEG keeps it.
    image = Image.linear_gradient('L').resize((40 + i, 40))
    image.save(tmp_path / 'train' / 'a' / f'{i}.jpg')
  source = opened(config)
  with contextlib.closing(pipeline.train_batches(source, config)) as batches:
    assert next(batches)['bad'].tolist() == [-1] * 6
    gone, cut = tmp_path / 'train' / 'a' / '2.jpg', tmp_path / 'train' / 'a' / '4.jpg'
    content, whole = gone.read_bytes(), cut.read_bytes()
    gone.unlink()
    cut.write_bytes(whole[: len(whole) - 40])
    for _ in range(3):
      batch = next(batches)
      assert sorted(batch['bad']) == [-1, -1, -1, -1, 2, 4] and batch['weight'].min() == 1
  assert column(evaluate(source, config), 'weight').tolist() == [1, 1, 0, 1, 0, 1, 0, 0]
  name = os.path.join('train', 'a', '2.jpg')
  assert pipeline.describe_bad(source, 2, config) == f'{name}: {os.strerror(errno.ENOENT)}'
  assert 'truncated' in pipeline.describe_bad(source, 4, config)
  gone.write_bytes(content)
  assert pipeline.describe_bad(source, 2, config) == f'{name}: can be read now'
