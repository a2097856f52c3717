"""Boxes of crops: the distribution of the random ones, hand values of the centred ones."""

import math

import numpy as np
import pytest
from scipy import stats

from ctx_flax.data import crops

SCALE, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)


class AlwaysHighest:
  """A generator whose uniform numbers are the upper bounds."""

  def uniform(self, low, high):
    return high


def draw(n, width, height, scale, aspect):
  rng = np.random.default_rng(0)
  left, top, right, bottom = np.array(
    [crops.random_box(width, height, rng, scale, aspect) for _ in range(n)]
  ).T
  return left, top, right - left, bottom - top


def assert_uniform(values, low, high):
  assert stats.kstest(values, 'uniform', (low, high - low)).pvalue > 0.01


def test_share_and_shape_are_uniform_and_independent():
  """Of boxes that always fit: the widest has 0.82 of the width."""
  _, _, w, h = draw(2000, 3000, 3000, (0.1, 0.5), ASPECT)
  share, shape = w * h / 3000**2, np.log(w / h)
  assert_uniform(share, 0.1, 0.5)
  assert_uniform(shape, math.log(3 / 4), math.log(4 / 3))
  assert abs(np.corrcoef(share, shape)[0, 1]) < 0.05


def test_the_shape_is_that_of_the_pixels():
  """Not relative to the image: it is square in the middle of its range also where the image is not."""
  _, _, w, h = draw(1000, 4000, 2000, (0.1, 0.2), (1 / 2, 2))
  assert_uniform(np.log(w / h), -math.log(2), math.log(2))


def test_the_shape_is_width_to_height():
  _, _, w, h = draw(100, 500, 500, (0.1, 0.3), (2, 3))
  assert (w / h > 1.95).all() and (w / h < 3.05).all()


@pytest.mark.parametrize('wide', [False, True])
def test_a_box_can_be_as_wide_or_as_high_as_the_image(wide):
  """It moves along the other side still: it is not the centre for want of a box that fits."""
  size, aspect = ((100, 50), (4, 4)) if wide else ((50, 100), (1 / 4, 1 / 4))
  left, top, w, h = draw(100, *size, (0.5, 0.5), aspect)
  if not wide:
    left, top, w, h = top, left, h, w
  assert set(w) == {100} and set(h) == {25} and set(left) == {0} and len(set(top)) > 10


def test_places_are_uniform():
  left, top, w, h = draw(2000, 3000, 2000, (0.1, 0.3), ASPECT)
  across, down = left / (3000 - w), top / (2000 - h)
  assert_uniform(across, 0, 1)
  assert_uniform(down, 0, 1)
  assert abs(np.corrcoef(across, down)[0, 1]) < 0.05


def test_every_place_is_drawn_up_to_the_last():
  rng = np.random.default_rng(0)
  boxes = [crops.random_box(4, 4, rng, (0.25, 0.25), (1, 1)) for _ in range(300)]
  counts = np.zeros((3, 3), int)
  for left, top, right, bottom in boxes:
    assert (right - left, bottom - top) == (2, 2)
    counts[top, left] += 1
  assert counts.min() > 15


@pytest.mark.parametrize('size', [(1, 1), (2, 1), (5, 3), (50, 40), (333, 1000), (20, 1000), (1000, 1)])
def test_boxes_are_inside_the_image_and_not_empty(size):
  left, top, w, h = draw(300, *size, SCALE, ASPECT)
  assert (left >= 0).all() and (top >= 0).all() and (w > 0).all() and (h > 0).all()
  assert (left + w <= size[0]).all() and (top + h <= size[1]).all()


def test_the_whole_range_of_imagenet_crops_occurs():
  _, _, w, h = draw(2000, 500, 375, SCALE, ASPECT)
  share = w * h / (500 * 375)
  assert 0.078 < share.min() < 0.085 and 0.97 < share.max() <= 1


@pytest.mark.parametrize(
  'width, height, box',
  [
    (1000, 12, (492, 0, 508, 12)),  # 16 : 12
    (12, 1000, (0, 492, 12, 508)),  # 12 : 16
    (1000, 10, (500 - 20 / 3, 0, 500 + 20 / 3, 10)),  # between the pixels
  ],
)
def test_of_a_panorama_the_middle_is_taken(width, height, box):
  """Half of its area never fits in a box of 3 : 4 to 4 : 3."""
  result = crops.random_box(width, height, np.random.default_rng(0), (0.5, 1.0), ASPECT)
  np.testing.assert_allclose(result, box)


def test_where_no_attempt_fits_the_largest_box_of_an_allowed_shape_is_taken():
  """Four thirds of the whole area never fit into a square."""
  assert crops.random_box(90, 90, AlwaysHighest(), SCALE, ASPECT) == (0, 0, 90, 90)
  assert crops.random_box(120, 100, AlwaysHighest(), SCALE, ASPECT) == (0, 0, 120, 100)
  assert crops.random_box(96, 96, AlwaysHighest(), SCALE, (4 / 3, 4 / 3)) == pytest.approx((0, 12, 96, 84))


def test_ten_attempts_are_made():
  """The eleventh would fit."""

  class Late(AlwaysHighest):
    def __init__(self, misses):
      self.left = 2 * misses

    def uniform(self, low, high):
      self.left -= 1
      return low if self.left < 0 else high

    def integers(self, high):
      return 0

  assert crops.random_box(90, 90, Late(9), (0.25, 1.0), (1, 4 / 3)) == (0, 0, 45, 45)
  assert crops.random_box(90, 90, Late(10), (0.25, 1.0), (1, 4 / 3)) == (0, 0, 90, 90)


def test_boxes_follow_from_the_generator_alone():
  first, again, other = (
    crops.random_box(500, 375, np.random.default_rng(seed), SCALE, ASPECT) for seed in (3, 3, 4)
  )
  assert first == again != other


@pytest.mark.parametrize(
  'image, size, ratio, box',
  [
    # The short side becomes 256, and 224 are cut out.
    ((320, 256), 224, 0.875, (48, 16, 272, 240)),
    ((256, 320), 224, 0.875, (16, 48, 240, 272)),
    ((500, 512), 224, 0.875, (31.25, 37.25, 468.75, 474.75)),
    # 224 / 0.95 = 235.8: the short side becomes 235.
    ((470, 600), 224, 0.95, (11, 76, 459, 524)),
    # The largest square.
    ((500, 333), 224, 1.0, (83.5, 0, 416.5, 333)),
    ((32, 32), 32, 1.0, (0, 0, 32, 32)),
    # 7 / 0.95 = 7.4: nothing is left to cut off.
    ((70, 90), 7, 0.95, (0, 10, 70, 80)),
  ],
)
def test_centre_boxes_by_hand(image, size, ratio, box):
  assert crops.centre_box(*image, size, ratio) == pytest.approx(box)
