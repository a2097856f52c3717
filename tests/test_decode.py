"""Image files of every kind become the right 8-bit pixels, in full or reduced; what is no image says so."""

import io
import math
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from ctx_flax.data import decode, png_chunks

WIDTH, HEIGHT = 9, 6


def noise(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind, **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return {'encoded': file.getvalue()}


def read(element):
  """The whole image at its own size."""
  image = decode.open_image(element)
  w, h = image.size
  return decode.cut(image, (0, 0, w, h), (w, h))


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


@pytest.mark.parametrize('channels', [1, 3])
def test_pixels_of_a_source_are_taken_as_they_are(channels):
  pixels = noise(HEIGHT, WIDTH, channels)
  result = read({'image': pixels})
  assert result.mode == ('L' if channels == 1 else 'RGB')
  np.testing.assert_array_equal(np.asarray(result).reshape(HEIGHT, WIDTH, channels), pixels)


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
