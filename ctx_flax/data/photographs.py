"""Photographs that other packages ship, so that sets made here need no download."""

import functools
import importlib.util
import pathlib

import numpy as np


@functools.cache
def shipped(package: str, file: str) -> np.ndarray:
  """A photograph in an installed package as uint8 (h, w, 3), decoded once in a process.

  Raises:
    FileNotFoundError: the package is not installed, or does not ship the file.
  """
  from PIL import Image

  spec = importlib.util.find_spec(package)
  path = pathlib.Path(spec.origin).parent / file if spec and spec.origin else None
  if path is None or not path.is_file():
    raise FileNotFoundError(f'{package} does not ship {file}: pip install -r requirements.txt')
  with Image.open(path) as image:
    return np.asarray(image.convert('RGB'))
