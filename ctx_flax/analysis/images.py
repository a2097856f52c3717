"""The images or clips that are looked at: files that somebody names, or some of the run's test set."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctx_flax.analysis.file_names import find_files
from ctx_flax.data import image_grid
from ctx_flax.data.decode import BadImage
from ctx_flax.data.sources import Source
from ctx_flax.files import printable


@dataclasses.dataclass(frozen=True)
class Images:
  """A few images, or clips, as the network sees them.

  Attributes:
    arrays: float32 (m, s, s, 3), normalised; of clips (m, t, s, s, 3).
    frames: uint8, the same to look at.
    pixels: uint8 (m, s, s, 3), a picture of each: a clip's middle frame.
    labels: int (m,); -1 where the class is not known.
    names: m names of files, or what the source calls them; for figures see ctx_flax.files.printable.
  """

  arrays: np.ndarray
  frames: np.ndarray
  labels: np.ndarray
  names: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.names)

  @property
  def pixels(self) -> np.ndarray:
    return self.frames if self.frames.ndim == 4 else self.frames[:, self.frames.shape[1] // 2]


@dataclasses.dataclass(frozen=True)
class Subset:
  """Some images of a Source, by their numbers."""

  source: Source
  indices: Sequence[int]

  @property
  def num_classes(self) -> int:
    return self.source.num_classes

  @property
  def class_names(self) -> Sequence[str]:
    return self.source.class_names

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self.source[self.indices[index]]

  def name(self, index: int) -> str:
    return self.source.name(self.indices[index])


def normalised_for(images: Images, data: Any, other: Any) -> Images:
  """The same images as another run's network sees them: with that run's mean and standard deviation.

  Args:
    images: Images.
    data: config.data of the run that they were made for.
    other: that of the other run.
  """
  means, deviations = (
    tuple(np.asarray(run[name], np.float32) for run in (data, other)) for name in ('mean', 'std')
  )
  scale = deviations[0] / deviations[1]
  shift = (means[0] - means[1]) / deviations[1]
  if (scale == 1).all() and (shift == 0).all():
    return images
  return dataclasses.replace(images, arrays=(images.arrays * scale + shift).astype(np.float32))


def chosen_images(run: Any, paths: str, indices: Sequence[int], field: str) -> Images:
  """The images of files, or of the test set where `paths` is ''.

  Args:
    run: a Run.
    paths: as for `find_files`, or ''.
    indices: numbers of test images.
    field: the group of the config that names them, for messages.

  Returns:
    Images.

  Raises:
    ValueError: an index that is out of range, or no file.
    BadImage: an image cannot be read.
  """
  source: Source
  if paths:
    source = run.task.source_of_files(find_files(paths, kind=run.task.kind), run.class_names)
    indices = range(len(source))
  else:
    source = run.source
    wrong = [i for i in indices if not 0 <= i < len(source)]
    if wrong or not indices:
      examples = run.task.examples
      raise ValueError(f'{field}.indices is {tuple(indices)}: the test {examples} are 0 to {len(source) - 1}')
  return images_of(run, source, indices, known=not paths)


def images_of(run: Any, source: Source, indices: Sequence[int], known: bool = True) -> Images:
  """The images of a source with those numbers, as the run's network sees them.

  Args:
    run: a Run.
    source: of its task.
    indices: numbers of images, at least one.
    known: False if the labels of the source mean nothing.

  Raises:
    BadImage: one cannot be read; names it.
  """
  transform = run.task.transform(run.config)
  arrays, labels = [], []
  for index in indices:
    try:
      element = source[index]
      arrays.append(transform(element))
    except (BadImage, OSError) as error:
      raise BadImage(printable(f'{source.name(index)} cannot be read: {error}')) from error
    labels.append(element['label'] if known else -1)
  images = np.asarray(run.task.inputs(run.config, np.stack(arrays)))
  data = run.config.data
  return Images(
    images,
    image_grid.to_pixels(images, data.mean, data.std),
    np.asarray(labels, np.int32),
    tuple(source.name(index) for index in indices),
  )
