"""Where images with objects come from: a table by name of functions (config.data, split) -> CocoSource."""

from collections.abc import Callable
from typing import Any

from ctx_flax.data import clip_sources, sources
from ctx_flax.data.coco import CocoSource, coco
from ctx_flax.data.coco_tiny import coco_tiny
from ctx_flax.data.image_files import counted
from ctx_flax.data.sources import SPLITS
from ctx_flax.files import printable
from ctx_flax.nearest import nearest

DETECTION_SOURCES: dict[str, Callable[[Any, str], CocoSource]] = {'coco': coco, 'coco_tiny': coco_tiny}


def open_detection_source(data: Any, split: str) -> CocoSource:
  """The source of DETECTION_SOURCES that data.name names.

  Raises:
    ValueError: an unknown name, a wrong split, or settings or files that the source cannot be made of.
    FileNotFoundError: its files are not there; the message says how to get them.
    ImportError: pycocotools is not installed.
  """
  if split not in SPLITS:
    raise ValueError(f'split must be one of {SPLITS}, but is {split!r}')
  if data.name not in DETECTION_SOURCES:
    others = {*sources.SOURCES, *clip_sources.CLIP_SOURCES}
    hint = '; it has no boxes and masks' if data.name in others else nearest(data.name, DETECTION_SOURCES)
    raise ValueError(f'unknown data.name {data.name!r}; known: {", ".join(sorted(DETECTION_SOURCES))}{hint}')
  return DETECTION_SOURCES[data.name](data, split)


def check_categories(train: CocoSource, test: CocoSource) -> None:
  """Raises ValueError if the labels of two sources do not mean the same."""
  ours, theirs = (dict(zip(s.category_ids, s.class_names, strict=True)) for s in (train, test))
  for category in sorted({*ours, *theirs}):
    names = [known.get(category, 'none') for known in (ours, theirs)]
    if names[0] != names[1]:
      raise ValueError(
        f'category {category} is {names[0]} in {printable(train.annotation_file)} and {names[1]} in '
        f'{printable(test.annotation_file)}: they must have the same categories'
      )


def describe(train: CocoSource, test: CocoSource) -> list[str]:
  """What there is to say about the two sources of a run, each a line: their sizes first, then remarks."""
  first, *remarks = sources.describe(train, test)
  return [f'{first}, {counted(int(train.object_counts.sum()), "object")} to train on', *remarks]
