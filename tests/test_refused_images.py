"""What is no image, damaged, cut short or too large is refused in one line."""

import struct
import zlib

import numpy as np
import pytest
from encoded_images import HEIGHT, WIDTH, encoded, noise, read
from PIL import Image

from ctx_flax.data import decode


@pytest.mark.parametrize('data', [b'', b'no image', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'GIF89a'])
def test_what_is_no_image_is_told_in_one_line(data):
  with pytest.raises(decode.BadImage) as refused:
    decode.open_image({'encoded': data})
  message = str(refused.value)
  assert message and '\n' not in message and '0x' not in message


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF', 'WEBP'])
@pytest.mark.parametrize('reduced', [False, True])
def test_truncated_files_are_bad_images(kind, reduced):
  """Not images of a gray lower half. Most are noticed only when their pixels are read."""
  data = encoded(Image.fromarray(noise(160, 160, 3)), kind)['encoded']
  size = (20, 20) if reduced else (160, 160)
  with pytest.raises(decode.BadImage):
    decode.cut(decode.open_image({'encoded': data[: len(data) // 2]}), (0, 0, 160, 160), size)


def test_opening_reads_the_header_only():
  data = encoded(Image.fromarray(noise(160, 150, 3)), 'JPEG')['encoded']
  assert decode.open_image({'encoded': data[: len(data) // 2]}).size == (150, 160)


def test_damaged_pixels_are_a_bad_image():
  data = bytearray(encoded(Image.fromarray(noise(64, 64, 3)), 'PNG')['encoded'])
  data[200:260] = bytes(60)
  with pytest.raises(decode.BadImage):
    read({'encoded': bytes(data)})


def test_floating_point_pixels_have_no_known_range():
  with pytest.raises(decode.BadImage, match='floating-point numbers'):
    read(encoded(Image.fromarray(np.ones((HEIGHT, WIDTH), np.float32)), 'TIFF'))


def test_images_of_too_many_pixels_are_refused_before_they_are_read(monkeypatch):
  data = encoded(Image.fromarray(noise(HEIGHT, WIDTH, 3)), 'PNG')['encoded']
  monkeypatch.setattr(decode, 'LARGEST', HEIGHT * WIDTH)
  assert read({'encoded': data}).size == (WIDTH, HEIGHT)
  monkeypatch.setattr(decode, 'LARGEST', HEIGHT * WIDTH - 1)
  monkeypatch.setattr(Image.Image, 'load', None)
  with pytest.raises(decode.BadImage, match=r'^9 x 6 pixels are more than 53$'):
    decode.open_image({'encoded': data})


@pytest.mark.parametrize('side, message', [(10_000, '10000 x 10000 pixels'), (30_000, 'decompression bomb')])
@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_small_files_of_huge_images_are_refused(side, message):
  """Such as Pillow warns of, and such as it refuses itself."""
  header = b'IHDR' + struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
  chunks = struct.pack('>I', 13) + header + struct.pack('>I', zlib.crc32(header)) + bytes(4) + b'IDAT'
  with pytest.raises(decode.BadImage, match=message):
    decode.open_image({'encoded': b'\x89PNG\r\n\x1a\n' + chunks + bytes(4)})


@pytest.mark.parametrize('error', [MemoryError, KeyboardInterrupt])
def test_what_is_not_the_files_fault_is_not_called_so(monkeypatch, error):
  def fail(file):
    raise error

  monkeypatch.setattr(Image, 'open', fail)
  with pytest.raises(error):
    decode.open_image({'encoded': b'anything'})


def test_errors_without_words_are_told_by_their_kind(monkeypatch):
  def fail(file):
    raise EOFError

  monkeypatch.setattr(Image, 'open', fail)
  with pytest.raises(decode.BadImage, match=r'^EOFError$'):
    decode.open_image({'encoded': b'anything'})
