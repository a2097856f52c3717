"""RandAugment: every operation by hand, and those that were drawn applied in their order."""

import math

import numpy as np
import pytest
from PIL import Image

from ctx_flax.data import rand_augment

FILL = (10, 20, 30)


def apply(name, pixels, argument=None):
  image = Image.fromarray(np.asarray(pixels, np.uint8))
  result = rand_augment.OPERATIONS[name][1](image, argument, FILL)
  assert (result.mode, result.size) == ('RGB', image.size)
  return np.asarray(result, int)


def values(name, given, argument=None):
  """Of an operation on values, in the first channel; the others, in another order, must obey too."""
  given = np.asarray(given)
  result = apply(name, np.stack([given, given[::-1], given], axis=-1)[None], argument)[0]
  np.testing.assert_array_equal(result[:, 2], result[:, 0])
  np.testing.assert_array_equal(result[:, 1], result[::-1, 0])
  return result[:, 0].tolist()


def noise(height, width):
  return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def filled(shape):
  return np.broadcast_to(FILL, shape).copy()


# The operations.


def test_auto_contrast_stretches_every_channel_to_the_whole_range():
  pixels = np.array([[[50, 0, 7], [100, 51, 7], [150, 255, 7]]])
  # (100 - 50) * 255 / 100 is 127.5, cut to 127; a channel of one value stays.
  np.testing.assert_array_equal(apply('auto_contrast', pixels), [[[0, 0, 7], [127, 51, 7], [255, 255, 7]]])


def test_equalize_makes_values_equally_frequent():
  """Of values that are equally frequent, steps of one height from 0 to 255; per channel."""
  pixels = np.zeros((1, 765, 3), np.uint8)
  pixels[0, :, 0] = np.repeat([3, 4, 5], 255)
  pixels[0, :, 1] = np.repeat([10, 20, 20], 255)
  pixels[0, :, 2] = 9
  result = apply('equalize', pixels)[0]
  np.testing.assert_array_equal(result[:, 0], np.repeat([0, 128, 255], 255))
  # The last value does not count towards the height of a step: 255 pixels to go through.
  np.testing.assert_array_equal(result[:, 1], np.repeat([0, 255, 255], 255))
  np.testing.assert_array_equal(result[:, 2], 9)


def test_invert():
  assert values('invert', [0, 1, 100, 255]) == [255, 254, 155, 0]


def test_rotate_turns_counter_clockwise_about_the_centre():
  pixels = noise(6, 6)
  np.testing.assert_array_equal(apply('rotate', pixels, 90), np.rot90(pixels))
  spot = np.zeros((41, 41, 3), np.uint8)
  spot[19:22, 34:37] = 255  # 15 pixels right of the centre
  for degrees in (30, -30):
    weights = apply('rotate', spot, degrees)[..., 0].astype(float)
    y, x = np.mgrid[:41, :41] - 20
    inside = np.hypot(y, x) < 19  # the corners are filled
    weights *= inside
    weights[weights < 30] = 0
    place = (weights * x).sum() / weights.sum(), -(weights * y).sum() / weights.sum()
    radians = math.radians(degrees)
    np.testing.assert_allclose(place, (15 * math.cos(radians), 15 * math.sin(radians)), atol=0.1)


def test_rotate_fills_the_corners():
  result = apply('rotate', np.full((20, 20, 3), 255), 30)
  np.testing.assert_array_equal(result[[0, 0, -1, -1], [0, -1, 0, -1]], filled((4, 3)))
  np.testing.assert_array_equal(result[8:12, 8:12], 255)


@pytest.mark.parametrize('name', ['shear_x', 'shear_y'])
def test_shear_moves_each_line_further_than_the_one_before(name):
  """By twice the distance of its middle from the edge: 1, 3, 5 ... pixels; to the left, or up."""
  pixels = noise(8, 8)
  given = pixels if name == 'shear_x' else pixels.swapaxes(0, 1)
  for factor in (2, -2):
    expected = filled((8, 8, 3))
    for line in range(4):  # of the others nothing is left
      by = 2 * line + 1
      if factor > 0:
        expected[line, : 8 - by] = given[line, by:]
      else:
        expected[line, by:] = given[line, : 8 - by]
    result = apply(name, pixels, factor)
    result = result if name == 'shear_x' else result.swapaxes(0, 1)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize('name', ['translate_x', 'translate_y'])
def test_translate_moves_by_a_fraction_of_the_side(name):
  """A quarter of eight columns to the left, of four rows up."""
  pixels = noise(4, 8)
  across = name == 'translate_x'
  given = pixels if across else pixels.swapaxes(0, 1)
  by = 2 if across else 1
  for fraction in (0.25, -0.25):
    expected = filled(given.shape)
    if fraction > 0:
      expected[:, :-by] = given[:, by:]
    else:
      expected[:, by:] = given[:, :-by]
    result = apply(name, pixels, fraction)
    np.testing.assert_array_equal(result if across else result.swapaxes(0, 1), expected)


def test_moved_pixels_are_bicubic():
  """Half a pixel: the four neighbours weigh -1, 5, 5, -1 eighths, since Pillow maps with a = -1."""
  row = np.array([60, 190, 70, 120, 200, 90, 180, 50])
  pixels = np.broadcast_to(row[None, :, None], (3, 8, 3))
  result = apply('translate_x', pixels, 0.5 / 8)[1, 1:6, 0]
  expected = (5 * (row[1:6] + row[2:7]) - row[:5] - row[3:8]) / 8
  np.testing.assert_allclose(result, expected, atol=1)


@pytest.mark.parametrize(
  'bits, expected',
  [(4, [0, 0b10110000, 240]), (3, [0, 0b10100000, 224]), (1, [0, 128, 128]), (0, [0, 0, 0])],
)
def test_posterize_keeps_the_highest_bits(bits, expected):
  assert values('posterize', [0b00001111, 0b10111011, 255], bits) == expected


def test_solarize_inverts_bright_values():
  given = [0, 127, 128, 255]
  assert values('solarize', given, 128) == [0, 127, 127, 0]
  assert values('solarize', given, 256) == given
  assert values('solarize', given, 0) == [255, 128, 127, 0]


def test_solarize_add_brightens_dark_values():
  assert values('solarize_add', [0, 100, 127, 128, 255], 50) == [50, 150, 177, 128, 255]
  assert values('solarize_add', [0, 127], 110) == [110, 237]
  assert values('solarize_add', [0, 127], 128) == [128, 255]
  assert values('solarize_add', [0, 127], 0) == [0, 127]
  assert values('solarize_add', [0, 100], 200) == [200, 255]


@pytest.mark.parametrize(
  'factor, expected',
  [
    (0.0, (124, 124, 124)),
    (0.1, (131.6, 121.6, 116.6)),
    (1.0, (200, 100, 50)),
    (1.9, (255, 78.4, 0)),
  ],
)
def test_color_goes_from_gray_through_the_image(factor, expected):
  """The gray of (200, 100, 50) is 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124."""
  # Beside it a pixel that is gray already: every pixel goes to its own gray, not to that of the image.
  result = apply('color', [[[200, 100, 50], [20, 20, 20]]], factor)
  np.testing.assert_allclose(result, [[expected, (20, 20, 20)]], atol=1)


@pytest.mark.parametrize(
  'factor, expected', [(0.0, (150, 150)), (0.5, (125, 175)), (1.5, (75, 225)), (9, (0, 255))]
)
def test_contrast_goes_from_the_mean_gray_through_the_image(factor, expected):
  result = apply('contrast', [[[100] * 3, [200] * 3]], factor)
  np.testing.assert_allclose(result[..., 0], [expected], atol=1)


def test_brightness_is_a_factor():
  assert values('brightness', [0, 100, 200], 0.5) == [0, 50, 100]
  assert values('brightness', [0, 100, 200], 1.5) == [0, 150, 255]


@pytest.mark.parametrize(
  'factor, centre, around', [(0.0, 50, 10), (0.1, 58, 9), (1.0, 130, 0), (1.9, 202, 0)]
)
def test_sharpness_goes_from_the_blurred_image_through_the_image(factor, centre, around):
  """Blurred, a pixel is 5 of 13 parts, its neighbours 1 each: of 130 there remain 50, and 10 around it."""
  pixels = np.zeros((5, 5, 3))
  pixels[2, 2] = 130
  expected = np.zeros((5, 5, 3))
  expected[1:4, 1:4] = around
  expected[2, 2] = centre
  np.testing.assert_allclose(apply('sharpness', pixels, factor), expected, atol=1)


# Those that were drawn.


def test_the_drawn_operations_are_applied_in_their_order(monkeypatch):
  asked = []

  def draw(rng, *arguments):
    asked.append(arguments)
    return [('invert', None), ('brightness', 0.6), ('translate_x', 0.5)]

  monkeypatch.setattr(rand_augment, 'draw', draw)
  image = Image.new('RGB', (4, 1), (105, 55, 5))
  settings = {'operations': 3, 'magnitude': 8.0, 'magnitude_std': 0.25, 'probability': 0.75}
  result = rand_augment.rand_augment(image, None, fill=FILL, **settings)
  np.testing.assert_array_equal(result, [[(90, 120, 150)] * 2 + [FILL] * 2])
  assert asked == [(3, 8.0, 0.25, 0.75)]


def test_an_image_follows_from_the_generator_alone():
  image = Image.fromarray(noise(16, 16))
  settings = {'operations': 2, 'magnitude': 9.0, 'magnitude_std': 0.5, 'probability': 1.0, 'fill': FILL}
  first, again, other = (
    np.asarray(rand_augment.rand_augment(image, np.random.default_rng(seed), **settings))
    for seed in (3, 3, 4)
  )
  np.testing.assert_array_equal(first, again)
  assert not np.array_equal(first, other)
