"""Random erasing: how often, where, what shape, and what is put there."""

import math

import numpy as np
import pytest
from scipy import stats

from ctx_flax.data import erasing


def assert_uniform(values, low, high):
  assert stats.kstest(values, 'uniform', (low, high - low)).pvalue > 0.01


@pytest.fixture(scope='module')
def rectangles():
  """Of an image of 2000 x 1500: (top, left, height, width), a row for each of 4000."""
  rng = np.random.default_rng(0)
  return np.array([erasing.random_rectangle(2000, 1500, rng) for _ in range(4000)])


def test_rectangles_lie_inside_the_image(rectangles):
  top, left, h, w = rectangles.T
  assert top.min() >= 0 and left.min() >= 0 and h.min() > 0 and w.min() > 0
  assert (top + h).max() <= 2000 and (left + w).max() <= 1500


def test_area_and_aspect_are_uniform(rectangles):
  """Where every attempt fits, below 0.22 of the area; above, tall and wide ones may not."""
  _, _, h, w = rectangles.T
  share = h * w / (2000 * 1500)
  assert 0.0199 < share.min() < 0.021 and 0.32 < share.max() < 1 / 3 + 1e-3
  small = share < 0.22
  assert_uniform(share[small], 0.02, 0.22)
  assert_uniform(np.log(h / w)[small], math.log(0.3), math.log(1 / 0.3))


def test_the_aspect_is_height_to_width(monkeypatch):
  monkeypatch.setattr(erasing, 'ASPECT', (2, 3))
  rng = np.random.default_rng(0)
  for _ in range(100):
    _, _, h, w = erasing.random_rectangle(1000, 1000, rng)
    assert 1.95 < h / w < 3.05


def test_places_are_uniform(rectangles):
  top, left, h, w = rectangles.T
  assert_uniform(top / (2000 - h), 0, 1)
  assert_uniform(left / (1500 - w), 0, 1)


def test_every_place_is_drawn_up_to_the_last():
  """In an image of 3 x 3, where a rectangle is of one or two pixels each way."""
  rng = np.random.default_rng(0)
  seen = {erasing.random_rectangle(3, 3, rng) for _ in range(500)}
  assert {(top, left, 1, 1) for top in range(3) for left in range(3)} <= seen
  assert {h for _, _, h, _ in seen} == {w for _, _, _, w in seen} == {1, 2}


@pytest.mark.parametrize('height, width', [(1, 1), (1, 50), (50, 1)])
def test_nothing_fits_into_a_line(height, width):
  """A rectangle leaves something of each side; where none fits, the image stays as it is."""
  rng = np.random.default_rng(0)
  assert erasing.random_rectangle(height, width, rng) is None
  image = np.full((height, width, 3), 7, np.float32)
  assert erasing.erase(image, rng, 1.0) is image
  assert (image == 7).all()


def test_the_rectangle_becomes_standard_normal_noise_pixel_by_pixel(monkeypatch):
  monkeypatch.setattr(erasing, 'random_rectangle', lambda height, width, rng: (20, 5, 60, 70))
  image = np.full((100, 80, 3), 7, np.float32)
  erasing.erase(image, np.random.default_rng(0), 1.0)
  noise = image[20:80, 5:75].copy()
  assert stats.kstest(noise.ravel(), 'norm').pvalue > 0.01
  # Of its own for every pixel and channel.
  assert len(np.unique(noise)) > 0.99 * noise.size
  assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.05
  image[20:80, 5:75] = 7
  assert (image == 7).all()


def test_it_erases_the_rectangle_that_it_drew():
  """Height and width are not mistaken for each other; all channels are erased, nothing else."""
  rng = np.random.default_rng(0)
  for _ in range(50):
    image = np.full((40, 90, 3), 7, np.float32)
    erasing.erase(image, rng, 1.0)
    changed = (image != 7).all(axis=2)
    np.testing.assert_array_equal(changed, (image != 7).any(axis=2))
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert 0.018 < changed.mean() < 0.35


@pytest.mark.parametrize('probability', [0.0, 0.25, 1.0])
def test_as_often_as_asked(probability):
  rng, n = np.random.default_rng(0), 2000
  erased = sum(
    (erasing.erase(np.zeros((16, 16, 3), np.float32), rng, probability) != 0).any() for _ in range(n)
  )
  assert abs(erased - probability * n) <= 3 * math.sqrt(n * probability * (1 - probability))


def test_it_works_in_place():
  image = np.zeros((16, 16, 3), np.float32)
  assert erasing.erase(image, np.random.default_rng(0), 1.0) is image
  assert image.any() and image.dtype == np.float32


def test_it_follows_from_the_generator_alone():
  first, again, other = (
    erasing.erase(np.zeros((16, 16, 3), np.float32), np.random.default_rng(seed), 1.0) for seed in (3, 3, 4)
  )
  np.testing.assert_array_equal(first, again)
  assert not np.array_equal(first, other)
