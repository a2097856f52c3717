"""Boxes of images are cut out and resized; a JPEG is decoded reduced where that pays."""

import io
import math

import numpy as np
import pytest
from encoded_images import encoded, noise
from PIL import ExifTags, Image

from ctx_flax.data import decode


def filtered(pixels, low, high, size):
  """The first axis, resized by a cubic filter (a = -1/2) that is as wide as a pixel of the result is."""
  factor = (high - low) / size
  scale, result = max(1.0, factor), []
  for i in range(size):
    distance = abs(np.arange(len(pixels)) + 0.5 - low - (i + 0.5) * factor) / scale
    inner = 1.5 * distance**3 - 2.5 * distance**2 + 1
    outer = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance < 1, inner, np.where(distance < 2, outer, 0))
    result.append(np.tensordot(weights / weights.sum(), pixels, axes=1))
  return np.clip(result, 0, 255)


@pytest.mark.parametrize(
  'box, size',
  [
    ((0, 0, 40, 30), (13, 10)),  # smaller: antialiased
    ((4, 6, 20, 14), (32, 24)),  # larger, each side by its own factor
    ((2.5, 3.25, 37.75, 28.5), (9, 11)),  # between the pixels
    ((5, 5, 15, 15), (10, 10)),  # as it is
    ((5, 4, 30, 22), (40, 30)),  # to the size of the whole image
  ],
)
def test_the_box_is_cut_out_and_resized(box, size):
  pixels = noise(30, 40, 3)
  left, top, right, bottom = box
  across = filtered(pixels.swapaxes(0, 1), left, right, size[0]).swapaxes(0, 1)
  expected = filtered(across, top, bottom, size[1])
  for element in (encoded(Image.fromarray(pixels), 'PNG'), {'image': pixels}):
    result = decode.cut(decode.open_image(element), box, size)
    assert (result.size, result.mode) == (size, 'RGB')
    np.testing.assert_allclose(np.asarray(result, float), expected, atol=1.5)


def smooth(height, width):
  """Waves of more than a hundred pixels, values 27 to 227: a filter hardly changes them."""
  y, x = np.mgrid[:height, :width]
  waves = (np.sin(x / 17), np.cos(y / 23), np.sin((x + y) / 31))
  return Image.fromarray((127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8))


@pytest.fixture
def decoded_sizes(monkeypatch):
  """The sizes that files were decoded at, in order."""
  sizes, convert = [], decode._to_gray_or_rgb

  def record(image):
    image.load()
    sizes.append(image.size)
    return convert(image)

  monkeypatch.setattr(decode, '_to_gray_or_rgb', record)
  return sizes


@pytest.mark.parametrize(
  'box, size, decoded',
  [
    ((0, 0, 448, 448), 112, (112, 112)),
    ((0, 0, 448, 448), 57, (112, 112)),
    ((0, 0, 448, 448), 56, (56, 56)),
    ((0, 0, 448, 448), 20, (56, 56)),  # an eighth is the least there is
    ((0, 0, 448, 448), 224, (224, 224)),
    ((0, 0, 448, 448), 225, (448, 448)),
    ((100, 50, 324, 274), 112, (224, 224)),  # what counts is the part that is cut out
    ((0, 0, 448, 300), 224, (448, 448)),  # and both of its sides
    ((0, 0, 300, 448), 224, (448, 448)),
  ],
)
def test_a_jpeg_is_decoded_reduced_where_it_pays(decoded_sizes, box, size, decoded):
  for mode in ('RGB', 'L', 'CMYK'):
    decode.cut(decode.open_image(encoded(Image.new(mode, (448, 448)), 'JPEG')), box, (size, size))
  assert decoded_sizes == [decoded] * 3


@pytest.mark.parametrize('width, height', [(448, 448), (443, 449), (300, 201)])
def test_reduced_decoding_shows_the_same(decoded_sizes, width, height):
  """Also where the sides are no multiple of eight, up to the last row and column."""
  element = encoded(smooth(height, width), 'JPEG', quality=95, subsampling=0)
  full = Image.open(io.BytesIO(element['encoded']))
  full.load()
  boxes = (
    (0, 0, width, height),
    (width - 170, height - 171, width, height),
    (30.5, 20.25, 200.75, 190.5),
  )
  for box in boxes:
    for side in (20, 40, 80):
      result = decode.cut(decode.open_image(element), box, (side, side))
      expected = full.resize((side, side), Image.Resampling.BICUBIC, box)
      difference = abs(np.asarray(result, int) - np.asarray(expected, int))
      # A box of half a decoded pixel further would differ by 2 to 10 on average.
      assert difference.mean() < 1 and difference.max() < 8, (box, side)
  assert all(size[0] <= -(-width // 2) for size in decoded_sizes)


def test_reduced_decoding_leaves_enough_pixels(decoded_sizes):
  rng = np.random.default_rng(0)
  for _ in range(200):
    w, h = (int(side) for side in rng.integers(20, 140, 2))
    size = tuple(int(side) for side in rng.integers(3, 40, 2))
    left, top = rng.uniform(0, 0.5, 2) * (w, h)
    box = left, top, rng.uniform(left + w / 4, w), rng.uniform(top + h / 4, h)
    decode.cut(decode.open_image(encoded(Image.new('L', (w, h)), 'JPEG')), box, size)
    (divisor,) = {d for d in (1, 2, 4, 8) if decoded_sizes[-1] == (math.ceil(w / d), math.ceil(h / d))}
    if divisor > 1:
      assert box[2] - box[0] >= divisor * size[0] and box[3] - box[1] >= divisor * size[1]
  assert len(set(decoded_sizes)) > 50


def test_a_turned_jpeg_is_cut_as_it_is_seen():
  """Turning has decoded it: nothing is left to be reduced, and the box is that of the turned image."""
  upright = smooth(400, 300)
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = 8
  stored = upright.transpose(Image.Transpose.ROTATE_270)
  element = encoded(stored, 'JPEG', exif=exif, quality=95, subsampling=0)
  box = (100, 200, 300, 400)
  result = decode.cut(decode.open_image(element), box, (50, 50))
  expected = upright.resize((50, 50), Image.Resampling.BICUBIC, box)
  np.testing.assert_allclose(np.asarray(result, int), np.asarray(expected, int), atol=6)
