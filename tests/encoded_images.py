"""Images as the bytes of a file, and what is decoded of them."""

import io

import numpy as np
from PIL import Image

from ctx_flax.data import decode

WIDTH, HEIGHT = 9, 6  # of small images


def noise(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind, **options):
  """An element of a source: the image as a file of that kind."""
  file = io.BytesIO()
  image.save(file, kind, **options)
  return {'encoded': file.getvalue()}


def png(pixels):
  return encoded(Image.fromarray(pixels), 'PNG')


def jpeg(brightness):
  """The bytes of a JPEG of one gray, 20 x 16 pixels."""
  return encoded(Image.new('RGB', (20, 16), (brightness,) * 3), 'JPEG')['encoded']


def read(element):
  """The whole image at its own size."""
  image = decode.open_image(element)
  w, h = image.size
  return decode.cut(image, (0, 0, w, h), (w, h))
