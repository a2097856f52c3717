"""Where images come from: a table by name of functions (config.data, split) -> Source.

Splits are 'train' and 'test'; which files they are is up to config.data.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ctx_flax.data.cub import cub
from ctx_flax.data.digits import digits
from ctx_flax.data.emoji import emoji
from ctx_flax.data.folders import image_folder
from ctx_flax.data.glyphs import glyphs
from ctx_flax.data.image_files import counted
from ctx_flax.data.lists import image_list
from ctx_flax.data.patches import patches
from ctx_flax.data.tfds_source import PREFIX, tfds_source
from ctx_flax.nearest import nearest


class Source(Protocol):
  """Images with a class each: random access, in an order that never changes; pickles into worker processes.

  A source may have an attribute `remarks`, a sequence of lines: what there is to say about its files.
  """

  @property
  def num_classes(self) -> int: ...

  @property
  def class_names(self) -> Sequence[str]:
    """`num_classes` names, in the order of the labels."""
    ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]:
    """'image' uint8 (h, w, 1 or 3), or 'encoded': the bytes of an image file; and 'label': int.

    Raises:
      OSError: a file cannot be read.
      BadImage: it can, and holds no image.
    """
    ...

  def name(self, index: int) -> str:
    """What messages call the image, by way of ctx_flax.files.printable: it may be the name of any file."""
    ...


SPLITS = ('train', 'test')
SOURCES: dict[str, Callable[[Any, str], Source]] = {
  'digits': digits,
  'glyphs': glyphs,
  'patches': patches,
  'emoji': emoji,
  'image_folder': image_folder,
  'image_list': image_list,
  'cub': cub,
}


def open_source(data: Any, split: str) -> Source:
  """The source that data.name names: one of SOURCES, or 'tfds:BUILDER'.

  Raises:
    ValueError: an unknown name, a wrong split, or settings that the source cannot be made with.
    FileNotFoundError: its files are not there; the message says how to get them.
  """
  if split not in SPLITS:
    raise ValueError(f'split must be one of {SPLITS}, but is {split!r}')
  if data.image_size < 1:
    raise ValueError(f'data.image_size must be 1 or more, but is {data.image_size}')
  if data.name.startswith(PREFIX):
    return tfds_source(data, split)
  if data.name not in SOURCES:
    raise ValueError(
      f'unknown data.name {data.name!r}; known: {", ".join(sorted(SOURCES))} and tfds:BUILDER'
      f'{nearest(data.name, SOURCES)}'
    )
  return SOURCES[data.name](data, split)


def describe(train: Source, test: Source, noun: str = 'image') -> list[str]:
  """What there is to say about the two sources of a run, each a line: their sizes first, then remarks.

  Args:
    train: to train on.
    test: to test on.
    noun: what one of their elements is called.
  """
  sizes = f'{counted(len(train), f"training {noun}")}, {counted(len(test), f"test {noun}")}'
  lines = [f'{sizes}, {train.num_classes:,} {"class" if train.num_classes == 1 else "classes"}']
  for source in (train, test):
    lines += getattr(source, 'remarks', ())
  return list(dict.fromkeys(lines))
