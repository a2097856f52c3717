"""The images that are looked at: files that somebody names, or images of the run's test set."""

import dataclasses
import glob
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctx_flax.data import image_grid, transforms
from ctx_flax.data.decode import BadImage
from ctx_flax.data.folders import SUFFIXES, FileSource


@dataclasses.dataclass(frozen=True)
class Images:
  """A few images as the network sees them.

  Attributes:
    arrays: float32 (m, s, s, 3), normalised.
    pixels: uint8 (m, s, s, 3), the same to look at.
    labels: int (m,); -1 where the class is not known.
    names: m strings.
  """

  arrays: np.ndarray
  pixels: np.ndarray
  labels: np.ndarray
  names: tuple[str, ...]

  def __len__(self):
    return len(self.names)


@dataclasses.dataclass(frozen=True)
class Subset:
  """Some images of a Source, by their numbers."""

  source: Any
  indices: Sequence[int]

  @property
  def num_classes(self):
    return self.source.num_classes

  @property
  def class_names(self):
    return self.source.class_names

  def __len__(self):
    return len(self.indices)

  def __getitem__(self, index):
    return self.source[self.indices[index]]

  def name(self, index):
    return self.source.name(self.indices[index])


def find_files(text):
  """The image files that `text` names: files, folders (with all below them) and globs, between commas.

  Returns:
    Paths in the order given, those of a folder or glob sorted; each once.

  Raises:
    ValueError: nothing is named, or a name that leads to no file.
  """
  found: dict[str, None] = {}
  for given in filter(None, (part.strip() for part in text.split(','))):
    path = pathlib.Path(os.path.expanduser(given))
    if path.is_dir():
      files = sorted(str(file) for file in path.rglob('*') if file.suffix.lower() in SUFFIXES)
    elif path.exists():
      files = [str(path)]
    else:
      files = sorted(
        file for file in glob.glob(os.path.expanduser(given), recursive=True) if os.path.isfile(file)
      )
    if not files:
      kind = f'holds no image files ({" ".join(SUFFIXES)})' if path.is_dir() else 'leads to no file'
      raise ValueError(f'{given!r} {kind}')
    found |= dict.fromkeys(files)
  if not found:
    raise ValueError('no images are named: give files, folders or globs, separated by commas')
  return list(found)


def files_as_source(files, class_names):
  """A Source of image files whose classes are not known; every label is 0."""
  return FileSource('', files, np.zeros(len(files), np.int32), class_names)


def chosen_images(run, paths, indices, field):
  """The images of files, or of the test set where `paths` is ''.

  Args:
    run: a Run.
    paths: as for `find_files`, or ''.
    indices: numbers of test images.
    field: the group of the config that names them, for messages.

  Returns:
    Images.

  Raises:
    ValueError: an index that is out of range, no file, or an image that cannot be read.
  """
  if paths:
    source = files_as_source(find_files(paths), run.class_names)
    indices = range(len(source))
  else:
    source = run.source
    wrong = [i for i in indices if not 0 <= i < len(source)]
    if wrong or not indices:
      raise ValueError(f'{field}.indices is {tuple(indices)}: the test images are 0 to {len(source) - 1}')
  transform = transforms.eval_transform(run.config)
  arrays, labels = [], []
  for index in indices:
    try:
      element = source[index]
      arrays.append(transform(element))
    except (BadImage, OSError) as error:
      raise ValueError(f'{source.name(index)} cannot be read: {error}') from error
    labels.append(-1 if paths else element['label'])
  images = np.stack(arrays)
  data = run.config.data
  return Images(
    images,
    image_grid.to_pixels(images, data.mean, data.std),
    np.asarray(labels, np.int32),
    tuple(source.name(index) for index in indices),
  )
