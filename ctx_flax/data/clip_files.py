"""Videos below a folder, as files or as folders of their frames, with their labels."""

import os
import re
from typing import Any

from ctx_flax.data.decode import BadImage
from ctx_flax.data.file_source import FileSource
from ctx_flax.data.image_files import FileKind, is_image

# The containers that videos come in; FFmpeg reads them all.
VIDEO_SUFFIXES = (
  *('.mp4', '.m4v', '.mov', '.webm', '.mkv', '.avi', '.mpg', '.mpeg', '.ts', '.mts', '.m2ts'),
  *('.wmv', '.flv', '.3gp', '.ogv'),
)
VIDEO = FileKind('video', lambda: VIDEO_SUFFIXES)
_NUMBER = re.compile('([0-9]+)')


class VideoFiles(FileSource):
  """Video files below a folder. An element names its file, which is read where it is decoded."""

  def __getitem__(self, index: int) -> dict[str, Any]:
    """{'video': path of the file, 'label': int}."""
    return {'video': os.path.join(self.root, self.name(index)), 'label': int(self._labels[index])}


class FrameFolders(FileSource):
  """Folders that hold the frames of a video each, as image files that count up: img_00001.jpg, ..."""

  def __getitem__(self, index: int) -> dict[str, Any]:
    """{'frames': (path of the folder, names of its image files in order), 'label': int}.

    The folder is listed here and not before: there may be hundreds of thousands.

    Raises:
      OSError: the folder is not there, or cannot be read.
      BadImage: it holds no image files.
    """
    folder = os.path.join(self.root, self.name(index))
    frames = frame_names(folder)
    if not frames:
      raise BadImage('the folder holds no image files')
    return {'frames': (folder, frames), 'label': int(self._labels[index])}


def frame_names(folder: str | os.PathLike[str]) -> tuple[str, ...]:
  """Names of the image files in a folder, by the numbers in them: img_9.jpg before img_10.jpg."""
  with os.scandir(folder) as opened:
    # Links are followed where a frame is read: asking each where it leads costs more than listing them.
    names = [
      entry.name for entry in opened if is_image(entry.name) and not entry.is_dir(follow_symlinks=False)
    ]
  return tuple(sorted(names, key=_in_order))


def _in_order(name: str) -> tuple[list[str | int], str]:
  # Text and numbers take turns, so that a number is never compared with text.
  parts = _NUMBER.split(name)
  return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
