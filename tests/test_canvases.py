"""Canvases: the smallest that holds an image, in both orientations, and what fits into none."""

import re

import numpy as np
import pytest

from ctx_flax.data import canvases

SIZES = canvases.both_orientations(((64, 64), (64, 96), (64, 96), (128, 96)))


def test_canvases_lie_and_stand_from_small_to_large():
  np.testing.assert_array_equal(
    SIZES, np.int32([(64, 64), (64, 96), (96, 64), (96, 128), (128, 96)]), strict=True
  )


def test_the_smallest_canvas_is_taken():
  hw = np.array(
    [[(1, 1), (64, 64), (65, 64)], [(64, 65), (96, 65), (97, 96)], [(97, 97), (1, 129), (96, 96)]]
  )
  np.testing.assert_array_equal(canvases.smallest_canvas(hw, SIZES), [[0, 0, 2], [1, 3, 4], [-1, -1, 3]])


def test_no_canvas_is_smaller_than_what_lies_in_it():
  hw = np.random.default_rng(0).integers(1, 140, (500, 2))
  for size, number in zip(hw, canvases.smallest_canvas(hw, SIZES), strict=True):
    large = [i for i, canvas in enumerate(SIZES) if (size <= canvas).all()]
    assert number == min(large, key=lambda i: SIZES[i].prod(), default=-1)


def test_an_image_without_a_canvas_is_named():
  hw = np.array([(64, 64), (129, 64), (300, 300)])
  message = (
    r'b\nc.jpg may get 129 x 64 pixels (height x width), but the largest of data.canvases are 96 x 128, '
    '128 x 96: add a larger one'
  )
  with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
    canvases.check_fit(hw, SIZES, ['a.jpg', 'b\nc.jpg', 'd.jpg'].__getitem__)
  canvases.check_fit(hw[:1], SIZES, str)


@pytest.mark.parametrize('sides', [(), ((64, 100),), ((0, 32),), ((64, 64), (32, 33))])
def test_sides_are_multiples_of_32(sides):
  with pytest.raises(
    ValueError, match=r'^data\.canvases must be \(short, long\) sides, multiples of 32, but'
  ):
    canvases.check_sides(sides)
