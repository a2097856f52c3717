"""Image files of every kind become the right 8-bit pixels."""

import struct

import numpy as np
import pytest
from encoded_images import HEIGHT, WIDTH, encoded, noise, read
from PIL import Image

from ctx_flax.data import decode


@pytest.mark.parametrize('mode', ['1', 'L', 'LA'])
def test_grayscale_stays_one_channel(mode):
  pixels = noise(HEIGHT, WIDTH)
  image = Image.fromarray(pixels)
  if mode == 'LA':
    image.putalpha(Image.fromarray(noise(HEIGHT, WIDTH, seed=1)))
  elif mode == '1':
    pixels = np.where(pixels < 128, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels).convert('1')
  element = encoded(image, 'PNG')
  assert decode.open_image(element).mode == mode
  result = read(element)
  assert result.mode == 'L'
  np.testing.assert_array_equal(result, pixels)


def test_grayscale_that_is_stored_times_alpha():
  """Some TIFF files say so: 60 at half of the opacity was 120."""
  data = encoded(Image.new('LA', (WIDTH, HEIGHT), (60, 128)), 'TIFF')['encoded']
  extra_samples = struct.pack('<HHI', 338, 3, 1)
  assert data.count(extra_samples + b'\2\0') == 1
  element = {'encoded': data.replace(extra_samples + b'\2\0', extra_samples + b'\1\0')}
  assert decode.open_image(element).mode == 'La'
  result = read(element)
  assert result.mode == 'L'
  np.testing.assert_allclose(np.asarray(result, int), 120, atol=1)


@pytest.mark.parametrize('kind', ['PNG', 'GIF', 'TIFF', 'BMP'])
def test_palettes_become_their_colours(kind):
  image = Image.fromarray(noise(HEIGHT, WIDTH, 3)).quantize(16)
  element = encoded(image, kind)
  assert decode.open_image(element).mode == 'P'
  result = read(element)
  assert result.mode == 'RGB'
  np.testing.assert_array_equal(result, image.convert('RGB'))


@pytest.mark.parametrize('transparency', [3, bytes([0, 255, 128, 7])])
def test_transparent_palettes_keep_their_colours(transparency):
  """One transparent colour, and an alpha value for each. Pillow warns of the latter: an error here."""
  indices = (np.arange(HEIGHT * WIDTH) % 4).astype(np.uint8).reshape(HEIGHT, WIDTH)
  colours = noise(4, 3)
  image = Image.frombytes('P', (WIDTH, HEIGHT), indices.tobytes())
  image.putpalette(colours.tobytes())
  element = encoded(image, 'PNG', transparency=transparency)
  assert 'transparency' in decode.open_image(element).info
  result = read(element)
  assert result.mode == 'RGB'
  np.testing.assert_array_equal(result, colours[indices])


def test_alpha_is_dropped():
  """Pixels that nobody should see have the colours of the file too: nothing is put behind the image."""
  pixels = noise(HEIGHT, WIDTH, 4)
  pixels[0, :, 3] = 0
  result = read(encoded(Image.fromarray(pixels), 'PNG'))
  assert result.mode == 'RGB'
  np.testing.assert_array_equal(result, pixels[..., :3])


@pytest.mark.parametrize(
  'ink, colour',
  [((255, 0, 0, 0), (0, 255, 255)), ((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 0), (255, 255, 255))],
)
def test_ink_of_a_jpeg_becomes_light(ink, colour):
  element = encoded(Image.new('CMYK', (32, 16), ink), 'JPEG', quality=95)
  assert decode.open_image(element).mode == 'CMYK'
  result = read(element)
  assert result.mode == 'RGB'
  np.testing.assert_allclose(np.asarray(result, int), np.broadcast_to(colour, (16, 32, 3)), atol=3)


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'big-endian TIFF'])
def test_sixteen_bits_become_eight(kind):
  """65535 is white, and a 257th of the value is rounded: 128 / 257 down, 129 / 257 up."""
  values = [0, 128, 129, 257, 385, 386, 32767, 32768, 65406, 65407, 65535]
  expected = [0, 0, 1, 1, 1, 2, 127, 128, 254, 255, 255]
  if kind == 'big-endian TIFF':
    image = Image.frombytes('I;16B', (len(values), 1), struct.pack(f'>{len(values)}H', *values))
  else:
    image = Image.fromarray(np.array([values], np.uint16))
  element = encoded(image, kind.split()[-1])
  assert decode.open_image(element).mode.startswith('I;16')
  result = read(element)
  assert result.mode == 'L'
  np.testing.assert_array_equal(result, [expected])


def test_thirty_two_bits_are_limited_to_sixteen():
  image = Image.fromarray(np.array([[-5, 0, 257, 65535, 10**6]], np.int32))
  np.testing.assert_array_equal(read(encoded(image, 'TIFF')), [[0, 0, 1, 255, 255]])


@pytest.mark.parametrize('channels', [1, 3])
def test_pixels_of_a_source_are_taken_as_they_are(channels):
  pixels = noise(HEIGHT, WIDTH, channels)
  result = read({'image': pixels})
  assert result.mode == ('L' if channels == 1 else 'RGB')
  np.testing.assert_array_equal(np.asarray(result).reshape(HEIGHT, WIDTH, channels), pixels)
