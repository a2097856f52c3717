"""Where images come from: a table by name of functions (config.data, split) -> Source.

A source is random access, in an order that never changes, and pickles into worker processes:
  len(source); source.num_classes; source.class_names, a sequence of as many strings;
  source[index] -> {'image': uint8 (h, w, 1 or 3)} or {'encoded': bytes of an image file}, and 'label': int,
    or OSError where a file cannot be read;
  source.name(index): what messages call the image.
Splits are 'train' and 'test'; which files they are is up to config.data.
"""

import difflib

from ctx_flax.data.cub import cub
from ctx_flax.data.digits import digits
from ctx_flax.data.folders import image_folder, image_list
from ctx_flax.data.glyphs import glyphs
from ctx_flax.data.patches import patches
from ctx_flax.data.tfds_source import PREFIX, tfds_source

SPLITS = ('train', 'test')
SOURCES = {
  'digits': digits,
  'glyphs': glyphs,
  'patches': patches,
  'image_folder': image_folder,
  'image_list': image_list,
  'cub': cub,
}


def open_source(data, split):
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
    near = difflib.get_close_matches(data.name, SOURCES, 1)
    raise ValueError(
      f'unknown data.name {data.name!r}{f", did you mean {near[0]!r}?" if near else ""}; known: '
      f'{", ".join(sorted(SOURCES))} and tfds:BUILDER'
    )
  return SOURCES[data.name](data, split)
