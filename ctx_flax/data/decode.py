"""From what a source gives to pixels: every kind of image file, read no larger than it is needed.

Alpha channels are dropped and grayscale stays one channel until it is normalised. Palettes, CMYK and 16-bit
files become 8-bit RGB or grayscale, and a photograph's EXIF orientation is applied.
"""

import io
import math
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from ctx_flax.data.png_chunks import without_long_text

GRAY = ('1', 'L', 'LA')
LARGEST = 89_000_000  # pixels of an image; Pillow warns of bombs a little above
TURNS = {  # what turns a file of an EXIF orientation upright
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}


class BadImage(ValueError):
  """A file that cannot be read as an image; says why in a few words."""


def open_image(element: dict[str, Any]) -> Image.Image:
  """A Pillow image of an element of a source: 'image' uint8 (h, w, 1 or 3) or 'encoded' bytes.

  Of a file only the header is read yet, where that suffices to tell the size as it will be seen.

  Raises:
    BadImage: the bytes are no image.
  """
  if 'image' in element:
    pixels = element['image']
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  with _as_bad_image():
    image = Image.open(io.BytesIO(without_long_text(element['encoded'])))
    w, h = image.size
    if w * h > LARGEST:
      raise BadImage(f'{w} x {h} pixels are more than {LARGEST:,}')
    # Turning decodes: the size has to be that of the turned image. Pillow's own exif_transpose would write
    # the EXIF block anew, and so refuse a good picture for a damaged tag.
    turn = TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def cut(image: Image.Image, box: tuple[float, ...], size: tuple[int, int]) -> Image.Image:
  """A part of an image, resized by an antialiased bicubic filter: -> Pillow image, mode L or RGB.

  A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where what is cut out stays as large as `size`.

  Args:
    image: what `open_image` returned; it is used up.
    box: (left, top, right, bottom) in pixels of the image, not necessarily whole ones.
    size: (width, height) of the result.

  Raises:
    BadImage: the file is truncated or damaged.
  """
  left, top, right, bottom = box
  w, h = image.size
  with _as_bad_image():
    # draft asks for a size that the decoded image must not fall below.
    least = math.ceil(w * size[0] / (right - left)), math.ceil(h * size[1] / (bottom - top))
    drafted = image.draft(image.mode, least)
    image = _to_gray_or_rgb(image)
  # The decoded size is rounded up: its last pixel may reach beyond the image, so the size tells no factor.
  factor = drafted[1][2] / w if drafted else 1
  box = (left * factor, top * factor, right * factor, bottom * factor)
  if box == (0, 0, *image.size) and image.size == size:
    return image
  return image.resize(size, Image.Resampling.BICUBIC, box)


class _as_bad_image:
  """Damaged files raise whatever the decoder of the moment stumbles over."""

  def __enter__(self):
    return self

  def __exit__(self, kind, error, _):
    if kind is None or issubclass(kind, BadImage | MemoryError) or not issubclass(kind, Exception):
      return False
    reason = ' '.join(str(error).split()) or kind.__name__
    # Pillow shows the address of the buffer, which tells nobody anything.
    raise BadImage(reason.split(' <_io.')[0]) from error


def _orientation(image):
  # Parsing is only worth it, and only safe, where there is something to parse. TIFF files turn on loading.
  if 'exif' not in image.info:
    return 1
  try:
    return image.getexif().get(ExifTags.Base.Orientation, 1)
  except Exception:  # Pillow's parser raises whatever a damaged block leads it to; the pixels may be good
    return 1


def _to_gray_or_rgb(image):
  image.load()
  if image.mode.startswith('I'):  # 16 bits: 65535 is white
    pixels = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
    return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
  if image.mode == 'F':
    raise BadImage('pixels are floating-point numbers of unknown range')
  if image.mode in ('P', 'PA') and 'transparency' in image.info:
    image = image.convert('RGBA')
  elif image.mode == 'La':  # gray times alpha
    image = image.convert('LA')
  target = 'L' if image.mode in GRAY else 'RGB'
  return image if image.mode == target else image.convert(target)
