"""From what a source gives to pixels: every kind of image file, read no larger than it is needed.

Alpha channels are dropped and grayscale stays one channel until it is normalised. Palettes, CMYK and 16-bit
files become 8-bit RGB or grayscale, and a photograph's EXIF orientation is applied.
"""

import io

import numpy as np
from PIL import ExifTags, Image, ImageOps

GRAY = ('1', 'L', 'LA', 'La')
LARGEST = 89_000_000  # pixels of an image; Pillow warns of bombs a little above


class BadImage(ValueError):
  """A file that cannot be read as an image; says why in a few words."""


def open_image(element):
  """A Pillow image of an element of a source: 'image' uint8 (h, w, 1 or 3) or 'encoded' bytes.

  Of a file only the header is read yet, where that suffices to tell the size as it will be seen.

  Raises:
    BadImage: the bytes are no image.
  """
  if 'image' in element:
    pixels = element['image']
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  with _as_bad_image():
    image = Image.open(io.BytesIO(element['encoded']))
    w, h = image.size
    if w * h > LARGEST:
      raise BadImage(f'{w} x {h} pixels are more than {LARGEST:,}')
    # Turning decodes: the size has to be that of the turned image.
    return ImageOps.exif_transpose(image) if _is_turned(image) else image


def cut(image, box, size):
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
    image.draft(image.mode, (int(w * size[0] / (right - left)), int(h * size[1] / (bottom - top))))
    image = _to_gray_or_rgb(image)
  x, y = image.size[0] / w, image.size[1] / h
  box = (left * x, top * y, right * x, bottom * y)
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


def _is_turned(image):
  # Parsing is only worth it, and only safe, where there is something to parse.
  if 'exif' not in image.info and image.format != 'TIFF':
    return False
  try:
    return image.getexif().get(ExifTags.Base.Orientation, 1) != 1
  except Exception:  # a damaged EXIF block says nothing about the pixels
    return False


def _to_gray_or_rgb(image):
  image.load()
  if image.mode.startswith('I'):  # 16 bits: 65535 is white
    pixels = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
    return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
  if image.mode == 'F':
    raise BadImage('pixels are floating-point numbers of unknown range')
  if image.mode in ('P', 'PA') and 'transparency' in image.info:
    image = image.convert('RGBA')
  target = 'L' if image.mode in GRAY else 'RGB'
  return image if image.mode == target else image.convert(target)
