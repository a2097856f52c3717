"""Pictures in a zip file, read one by one: entries STYLE/CLASS.png, stored as they are."""

import functools
import os
import pathlib
import threading
import zipfile

import numpy as np

from ctx_flax.data.decode import BadImage
from ctx_flax.files import printable

HEADER = 30  # bytes of an entry's own header before its name
CACHE = 1 << 27  # bytes of decoded pictures that a process keeps


@functools.cache
def entries(path: pathlib.Path) -> dict[tuple[str, str], tuple[int, int]]:
  """{(style, class): (offset, size) of the PNG file}, read once in a process.

  Raises:
    BadImage: it is no zip file, or one of compressed entries.
  """
  try:
    with zipfile.ZipFile(path) as archive, open(path, 'rb') as file:
      found = {}
      for entry in archive.infolist():
        style, _, name = entry.filename.removesuffix('.png').partition('/')
        if name and entry.filename.endswith('.png'):
          if entry.compress_type != zipfile.ZIP_STORED:
            raise BadImage(f'{entry.filename} is compressed, not stored')
          # Its own header may have another length than the one in the list of all entries.
          header = os.pread(file.fileno(), HEADER, entry.header_offset)
          lengths = int.from_bytes(header[26:28], 'little') + int.from_bytes(header[28:30], 'little')
          found[style, name] = entry.header_offset + HEADER + lengths, entry.file_size
      return found
  except zipfile.BadZipFile as error:
    raise BadImage(f'no zip file ({error})') from None


class _Pictures:
  """Decoded pictures of one file, up to CACHE bytes of them; those beyond are decoded every time."""

  def __init__(self, path):
    self.path = path
    self.entries = entries(path)
    self.file = os.open(path, os.O_RDONLY)
    self.decoded = {}
    self.bytes = 0
    self.lock = threading.Lock()

  def __call__(self, key):
    kept = self.decoded.get(key)
    if kept is not None:
      return kept
    offset, size = self.entries[key]
    picture = decode(os.pread(self.file, size, offset), f'{printable(self.path)}: {"/".join(key)}.png')
    with self.lock:
      if key not in self.decoded and self.bytes + picture.nbytes <= CACHE:
        self.decoded[key] = picture
        self.bytes += picture.nbytes
    return picture


OPENING = threading.Lock()


def _pictures(path):
  with OPENING:  # threads that both found nothing would open it twice
    return _opened(path)


@functools.cache
def _opened(path):
  return _Pictures(path)


def picture(path: pathlib.Path, style: str, name: str) -> np.ndarray:
  """uint8 (s, s, 4): RGB times alpha, and alpha. Read-only.

  Raises:
    BadImage: it cannot be decoded.
  """
  return _pictures(path)((style, name))


def decode(content: bytes, name: str) -> np.ndarray:
  """A PNG file with alpha -> uint8 (h, w, 4): RGB times alpha, and alpha."""
  import cv2

  image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
  if image is None or image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 4:
    raise BadImage(f'{name} is no picture with alpha')
  image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)
  alpha = image[..., 3:].astype(np.uint16)
  image[..., :3] = (image[..., :3] * alpha + 127) // 255
  image.flags.writeable = False
  return image
