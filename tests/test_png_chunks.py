"""PNG files with long texts or colour profiles are read; other files stay as they are."""

import struct
import zlib

import numpy as np
import pytest
from encoded_images import HEIGHT, WIDTH, encoded, noise, read
from PIL import Image

from ctx_flax.data import decode, png_chunks


def with_chunks(data, *chunks, last=False):
  """A PNG file with (kind, content) more, before its pixels or behind them."""
  place = data.index(b'IEND' if last else b'IDAT') - 4
  added = b''.join(
    struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
    for kind, content in chunks
  )
  return data[:place] + added + data[place:]


LONG = zlib.compress(bytes(2**22))  # 4 KB that inflate to four times what Pillow allows
CHUNKS = {
  'text': [(b'tEXt', b'Comment\0' + b'x' * 2**20)],
  'compressed text': [(b'zTXt', b'Comment\0\0' + LONG)],
  'international text': [(b'iTXt', b'Comment\0\1\0en\0\0' + LONG)],
  'colour profile': [(b'iCCP', b'ICC\0\0' + LONG)],
  'many texts': [(b'tEXt', b'c%d\0' % i + b'x' * 2**20) for i in range(70)],
}


@pytest.mark.parametrize('last', [False, True])
@pytest.mark.parametrize('kind', CHUNKS)
def test_pngs_with_long_texts_or_colour_profiles_are_read(kind, last):
  """Pillow refuses the whole file for most of them; none is inflated here."""
  pixels = noise(HEIGHT, WIDTH, 3)
  data = encoded(Image.fromarray(pixels), 'PNG')['encoded']
  np.testing.assert_array_equal(read({'encoded': with_chunks(data, *CHUNKS[kind], last=last)}), pixels)


def test_other_files_and_short_texts_stay_as_they_are():
  """Short texts may hold the orientation; the same bytes, not a copy, where nothing is left out."""
  png = with_chunks(encoded(Image.new('L', (3, 2)), 'PNG')['encoded'], (b'tEXt', b'exif\0' + bytes(99)))
  jpeg = encoded(Image.new('L', (3, 2)), 'JPEG')['encoded']
  for data in (png, jpeg, b'', png[:30], png[:8], png[:-20]):
    assert png_chunks.without_long_text(data) is data


@pytest.mark.parametrize('length', [2**31, 10**6, 60])
def test_a_damaged_png_is_left_to_the_decoder(length):
  """A chunk that claims to be longer than the file, or ends within another one."""
  data = with_chunks(encoded(Image.new('L', (3, 2)), 'PNG')['encoded'], (b'zTXt', b'c\0\0' + LONG[:40]))
  place = data.index(b'zTXt') - 4
  with pytest.raises(decode.BadImage):
    read({'encoded': data[:place] + struct.pack('>I', length) + data[place + 4 :]})
