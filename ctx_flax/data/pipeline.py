"""Batches of images with a class each.

  'image' float32 (b, s, s, 3), 'label' int32 (b,);
  'weight' float32 (b,): 1 for images, 0 for rows that only fill up the last batch of an evaluation;
  'bad' int32 (b,): the index of the unreadable image that stood in this place, -1 where none did;
  'other_label' int32 (b,), 'lam' float32 (b,): where mixup or cutmix is on, see ctx_flax.data.mixing.

How batches follow from the seed and the step is said in ctx_flax.data.batches.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ctx_flax.data import batches, elements, mixing, transforms
from ctx_flax.data.batches import Batches, Row
from ctx_flax.data.elements import EvalElement, TrainElement
from ctx_flax.data.sources import Source

ON_BAD_IMAGE = 'skip', 'error'


def check_settings(config: Any) -> None:
  """Raises ValueError for a field that no batch can be made with."""
  batches.check_settings(config)
  if config.data.on_bad_image not in ON_BAD_IMAGE:
    raise ValueError(f'data.on_bad_image must be one of {ON_BAD_IMAGE}, but is {config.data.on_bad_image!r}')
  transforms.check_settings(config)


def train_batches(
  source: Source, config: Any, start: int = 0, process: int = 0, processes: int = 1
) -> Batches:
  """Endless batches for the steps start, start + 1, ... of a run.

  Every epoch is shuffled and augmented anew; a batch may hold the end of one epoch and the start of the
  next, so that every image is used equally often. An unreadable image is replaced by the next good one.

  Args:
    source: of the images.
    config: uses seed, train.batch_size (of all processes together) and data.
    start: the step of the first batch.
    process, processes: which rows are made here: part `process` of `processes` equal ones.

  Returns:
    Batches, to be closed: that ends the worker processes. They raise BadImage for an
    unreadable image where config.data.on_bad_image is 'error', and for too many in a row.

  Raises:
    ValueError: a setting is wrong, or the processes cannot share a batch.
  """
  check_settings(config)
  data = config.data
  element = TrainElement(source, TrainRow(transforms.train_transform(config)), data.on_bad_image)
  mix = mixing.mix_of(data)
  return batches.train_batches(element, len(source), config, start, process, processes, mix=mix)


def eval_batches(
  source: Source, config: Any, process: int = 0, processes: int = 1, start: int = 0
) -> Batches:
  """All images once, in order, the last batch filled up with rows of weight 0. Unreadable ones weigh 0 too.

  Args:
    source: of the images.
    config: uses eval.{batch_size, crop_ratio} and data.
    process, processes: as for `train_batches`; every process makes the same number of batches.
    start: the number of the first batch, from 0.

  Returns:
    Batches, to be closed. They raise what those of `train_batches` do.
  """
  check_settings(config)
  row = EvalRow(transforms.eval_transform(config))
  element = EvalElement(source, row, row.filling, config.data.on_bad_image)
  return batches.eval_batches(element, len(source), config, process, processes, start)


def describe_bad(source: Source, index: int, config: Any) -> str:
  """'NAME: reason' of an image that cannot be read, on one line of valid UTF-8."""
  return elements.describe_bad(source, index, transforms.eval_transform(config))


@dataclasses.dataclass(frozen=True)
class TrainRow:
  """(element of a source, np.random.Generator) -> its augmented image, or clip, and its label."""

  transform: Callable[[dict[str, Any], np.random.Generator], np.ndarray]

  def __call__(self, element: dict[str, Any], rng: np.random.Generator) -> Row:
    return {'image': self.transform(element, rng), 'label': np.int32(element['label'])}


class EvalTransform(Protocol):
  """Element of a source -> what a test sees of it; BadImage and OSError say that it cannot be read."""

  def __call__(self, element: dict[str, Any]) -> np.ndarray: ...

  def blank(self) -> np.ndarray:
    """What stands for an element that cannot be read, and fills up a batch."""
    ...


@dataclasses.dataclass(frozen=True)
class EvalRow:
  """Element of a source -> what a transform of evaluation makes of it, and its label."""

  transform: EvalTransform

  def __call__(self, element: dict[str, Any]) -> Row:
    return {'image': self.transform(element), 'label': np.int32(element['label'])}

  def filling(self) -> Row:
    """A black row of class 0."""
    return {'image': self.transform.blank(), 'label': np.int32(0)}
