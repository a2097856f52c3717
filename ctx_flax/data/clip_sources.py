"""Where clips come from: a table by name of functions (config.data, split) -> ClipSource.

Splits are 'train' and 'test'; which files they are is up to config.data.
"""

from collections.abc import Callable
from typing import Any, Protocol

from ctx_flax.data import sources
from ctx_flax.data.kinetics import kinetics_csv
from ctx_flax.data.moves import moves
from ctx_flax.data.sources import SPLITS, Source
from ctx_flax.data.video_lists import frame_list, video_folder, video_list
from ctx_flax.nearest import nearest


class ClipSource(Source, Protocol):
  """Videos with a class each, as a Source is of images."""

  def __getitem__(self, index: int) -> dict[str, Any]:
    """'video': the path of a video file, or 'frames': (path of a folder, names of its image files in order);
    and 'label': int.

    Raises:
      OSError: the folder of frames is not there, or cannot be read.
      BadImage: it holds no frames.
    """
    ...


CLIP_SOURCES: dict[str, Callable[[Any, str], ClipSource]] = {
  'video_folder': video_folder,
  'video_list': video_list,
  'frame_list': frame_list,
  'kinetics_csv': kinetics_csv,
  'moves': moves,
}


def open_clip_source(data: Any, split: str) -> ClipSource:
  """The source of CLIP_SOURCES that data.name names.

  Raises:
    ValueError: an unknown name, a wrong split, or settings that the source cannot be made with.
    FileNotFoundError: its files are not there; the message says how to get them.
    ImportError: it makes its videos, and PyAV is not installed.
  """
  if split not in SPLITS:
    raise ValueError(f'split must be one of {SPLITS}, but is {split!r}')
  if data.name not in CLIP_SOURCES:
    images = (
      '; it has images, not videos' if data.name in sources.SOURCES else nearest(data.name, CLIP_SOURCES)
    )
    raise ValueError(f'unknown data.name {data.name!r}; known: {", ".join(sorted(CLIP_SOURCES))}{images}')
  return CLIP_SOURCES[data.name](data, split)


def describe(train: ClipSource, test: ClipSource) -> list[str]:
  """What there is to say about the two sources of a run, each a line: their sizes first, then remarks."""
  return sources.describe(train, test, 'video')
