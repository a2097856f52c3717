"""EXIF: photographs are turned upright, and damage to what they say is no error."""

import struct

import numpy as np
import pytest
from encoded_images import HEIGHT, WIDTH, encoded
from PIL import ExifTags, Image

from ctx_flax.data import decode


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF', 'WEBP'])
def test_turned_photographs_are_upright(kind):
  """EXIF says which side of the picture the first row and the first column of the file are."""
  upright = np.zeros((48, 64, 3), np.uint8)
  upright[:24, :32, 0] = upright[:24, 32:, 1] = upright[24:, :32, 2] = upright[24:, 32:] = 255
  turned = upright.swapaxes(0, 1)
  stored = {
    1: upright,  # top, left
    2: upright[:, ::-1],  # top, right
    3: upright[::-1, ::-1],  # bottom, right
    4: upright[::-1],  # bottom, left
    5: turned,  # left, top
    6: turned[::-1],  # right, top
    7: turned[::-1, ::-1],  # right, bottom
    8: turned[:, ::-1],  # left, bottom
  }
  options = {'JPEG': {'quality': 95, 'subsampling': 0}, 'WEBP': {'lossless': True}}.get(kind, {})
  for orientation, pixels in stored.items():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    element = encoded(Image.fromarray(np.ascontiguousarray(pixels)), kind, exif=exif, **options)
    image = decode.open_image(element)
    assert image.size == (64, 48), orientation
    result = decode.cut(image, (0, 0, 64, 48), (64, 48))
    # The edges of the four fields are those of a JPEG's blocks.
    atol = 3 if kind == 'JPEG' else 0
    np.testing.assert_allclose(np.asarray(result, int), upright, atol=atol, err_msg=f'{orientation}')


def exif_block(*entries):
  """An EXIF block of entries (tag, type, number of values, their four bytes), as cameras err."""
  body = b''.join(struct.pack('<HHI', *entry[:3]) + entry[3] for entry in entries)
  return b'Exif\0\0II*\0' + struct.pack('<IH', 8, len(entries)) + body + bytes(4)


ON_ITS_SIDE = (ExifTags.Base.Orientation, 3, 1, struct.pack('<HH', 6, 0))


@pytest.mark.filterwarnings('ignore::UserWarning:PIL')
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
@pytest.mark.parametrize(
  'exif, size',
  [
    (b'Exif\0\0', (9, 6)),
    (b'Exif\0\0neither byte order', (9, 6)),
    (b'Exif\0\0II*\0', (9, 6)),
    (exif_block(ON_ITS_SIDE)[:17], (9, 6)),  # cut off
    (exif_block((ExifTags.Base.Orientation, 2, 4, b'abc\0')), (9, 6)),
    (exif_block((ExifTags.Base.Orientation, 3, 1, struct.pack('<HH', 99, 0))), (9, 6)),
    (exif_block((ExifTags.Base.Orientation, 5, 1, struct.pack('<I', 40000))), (9, 6)),  # lies outside
    # What can be read of the orientation is used, whatever is wrong beside it.
    (exif_block(ON_ITS_SIDE, (ExifTags.Base.Make, 2, 5000, struct.pack('<I', 60000))), (6, 9)),
    (exif_block(ON_ITS_SIDE, (ExifTags.Base.XResolution, 2, 4, b'abc\0')), (6, 9)),
    (exif_block(ON_ITS_SIDE, (ExifTags.Base.BitsPerSample, 2, 4, b'abc\0')), (6, 9)),
    (exif_block(ON_ITS_SIDE, (0x8769, 4, 1, struct.pack('<I', 60000))), (6, 9)),
  ],
)
def test_damaged_exif_is_no_error(kind, exif, size):
  element = encoded(Image.new('RGB', (WIDTH, HEIGHT), (200, 100, 50)), kind, exif=exif)
  image = decode.open_image(element)
  assert image.size == size
  result = decode.cut(image, (0, 0, *size), size)
  np.testing.assert_allclose(np.asarray(result, int)[3, 3], (200, 100, 50), atol=3)
