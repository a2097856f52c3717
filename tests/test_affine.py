"""The affine map by hand, and what is drawn for it."""

import math

import numpy as np
import pytest
from encoded_images import noise
from PIL import Image
from scipy import stats

from ctx_flax.data import transforms


def assert_uniform(values, low, high):
  assert stats.kstest(values, 'uniform', (low, high - low)).pvalue > 0.01


def turned(pixels, **arguments):
  return np.asarray(transforms.affine(Image.fromarray(pixels), **arguments), int)


@pytest.mark.parametrize('shape', [(6, 6), (6, 6, 3)])
def test_affine_by_hand(shape):
  pixels = noise(*shape)
  np.testing.assert_array_equal(turned(pixels), pixels)
  # sin and cos are not exact: a pixel may round to its neighbouring value.
  np.testing.assert_allclose(turned(pixels, angle=90), np.rot90(pixels), atol=1)
  down_right = turned(pixels, shift=(2, 1))
  np.testing.assert_array_equal(down_right[2:, 1:], pixels[:-2, :-1])
  assert not down_right[:2].any() and not down_right[:, :1].any()
  # Turned first, shifted then.
  both = turned(pixels, angle=90, shift=(1, 0))
  np.testing.assert_allclose(both[1:], np.rot90(pixels)[:-1], atol=1)


def test_affine_turns_about_the_centre_of_an_oblong_image():
  pixels = noise(5, 9)
  np.testing.assert_allclose(turned(pixels, angle=180), pixels[::-1, ::-1], atol=1)


def test_affine_is_bilinear_between_pixels():
  """Half a pixel to the right: the mean of neighbours, of even ones so that it is whole."""
  pixels = noise(4, 6) // 2 * 2
  np.testing.assert_array_equal(
    turned(pixels, shift=(0, 0.5))[:, 1:], (pixels[:, 1:] // 2 + pixels[:, :-1] // 2)
  )


def test_affine_enlarges_about_the_centre():
  pixels = np.zeros((8, 8), np.uint8)
  pixels[3:5, 3:5] = 200
  large = turned(pixels, scale=2.0)
  np.testing.assert_array_equal(large, large[::-1, ::-1])
  assert large[2:6, 2:6].min() > 0 and large.sum() == pytest.approx(4 * pixels.sum(dtype=int), rel=0.01)


def test_affine_keeps_size_and_mode():
  for mode in ('L', 'RGB'):
    result = transforms.affine(Image.new(mode, (7, 4)), angle=10.0)
    assert (result.mode, result.size) == (mode, (7, 4))


def record_affine(monkeypatch, n=500, seed=0, **ranges):
  seen = []
  monkeypatch.setattr(transforms, 'affine', lambda image, *arguments: seen.append(arguments) or image)
  image, rng = Image.new('L', (20, 10)), np.random.default_rng(seed)
  for _ in range(n):
    transforms.random_affine(image, rng, **ranges)
  return np.array([(angle, *shift, factor) for angle, shift, factor in seen]).T


def test_random_affine_is_uniform_in_its_ranges(monkeypatch):
  """Degrees, a tenth of height and of width, a factor that shrinks as often as it enlarges."""
  angle, dy, dx, factor = record_affine(monkeypatch, rotate=10.0, shift=0.1, scale=0.25)
  for values, bound in ((angle, 10), (dy, 1), (dx, 2), (np.log(factor), math.log(1.25))):
    assert -bound <= values.min() < -0.95 * bound and 0.95 * bound < values.max() <= bound
    assert_uniform(values, -bound, bound)
  assert abs(np.corrcoef([angle, dy, dx, factor]) - np.eye(4)).max() < 0.15


def test_a_range_of_zero_leaves_the_other_draws_as_they_were(monkeypatch):
  ranges = {'rotate': 10.0, 'shift': 0.1, 'scale': 0.25}
  drawn = record_affine(monkeypatch, n=5, **ranges)
  for name, rows in (('rotate', [0]), ('shift', [1, 2]), ('scale', [3])):
    without = record_affine(monkeypatch, n=5, **ranges | {name: 0.0})
    expected = drawn.copy()
    expected[rows] = 1.0 if name == 'scale' else 0.0
    np.testing.assert_array_equal(without, expected)
