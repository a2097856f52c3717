"""Frames of a video by their numbers, from 0: of a video file, or of a folder with an image file for each."""

import contextlib
import importlib.util
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from ctx_flax.data import decode
from ctx_flax.data.decode import BadImage
from ctx_flax.files import printable


class Clip(Protocol):
  """A video whose frames can be read."""

  @property
  def count(self) -> int:
    """How many frames there are: 1 or more."""
    ...

  def read(self, indices: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """uint8 (h, w, 3), RGB, for each index, in their order; indices may repeat.

    Raises:
      BadImage: the pixels are damaged.
      IndexError: there is no such frame.
    """
    ...


@contextlib.contextmanager
def open_clip(element: dict[str, Any]) -> Iterator[Clip]:
  """The video of an element of a source; its file is closed at the end of the block.

  Args:
    element: 'video': the path of a video file, or its bytes; or 'frames': (path of a folder, names of the
      files in it, in order).

  Raises:
    BadImage: it is no video, or one without frames.
    OSError: the file is not there, or cannot be read.
    ImportError: a video file, and PyAV is not installed.
  """
  if 'frames' in element:
    folder, names = element['frames']
    yield FrameFolder(folder, names)
    return
  require_pyav()
  from ctx_flax.data.video_file import VideoFile

  with VideoFile(element['video']) as clip:
    yield clip


def require_pyav() -> None:
  """Raises ImportError, in one line, if PyAV is not installed."""
  if importlib.util.find_spec('av') is None:
    raise ImportError('reading video files needs PyAV, which is not installed: pip install "ctx-flax[video]"')


class FrameFolder:
  """A Clip of image files, each of which is opened when it is read.

  Args:
    folder: that holds the files.
    names: of the files, in the order of the frames.

  Raises:
    BadImage: there are none.
  """

  def __init__(self, folder: str | os.PathLike[str], names: Sequence[str]) -> None:
    if not names:
      raise BadImage('no frames')
    self._folder, self._names = pathlib.Path(folder), names

  @property
  def count(self) -> int:
    return len(self._names)

  def read(self, indices: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """As Clip.read; BadImage names the file, and OSError is raised for a file that is not there."""
    frames = {index: self._read(index) for index in sorted(checked(indices, self.count))}
    return [frames[int(index)] for index in indices]

  def _read(self, index: int) -> np.ndarray:
    name = self._names[index]
    encoded = (self._folder / name).read_bytes()
    try:
      image = decode.open_image({'encoded': encoded})
      image = decode.cut(image, (0, 0, *image.size), image.size)
    except BadImage as error:
      raise BadImage(f'{printable(name)}: {error}') from error
    return np.asarray(image.convert('RGB'))


def checked(indices: Sequence[int] | np.ndarray, count: int) -> set[int]:
  """The different indices; IndexError for one that is none of `count` frames."""
  different = {int(index) for index in indices}
  for index in different:
    if not 0 <= index < count:
      raise IndexError(f'frame {index} of a video of {count}')
  return different
