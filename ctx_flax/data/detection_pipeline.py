"""Batches of images with objects. All rows of a batch, of all processes, have one canvas (h, w).

What a row holds is said in ctx_flax.data.detection_transforms; besides, as in all batches,
  'weight' float32 (b,): 1 for images, 0 for rows that only fill up a batch of an evaluation;
  'bad' int32 (b,): the index of the unreadable image that stood in this place, -1 where none did.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ctx_flax.data import batches, canvases, detection_draws, detection_plan, detection_transforms, elements
from ctx_flax.data.batches import Batches, Row
from ctx_flax.data.coco import CocoSource
from ctx_flax.data.detection_plan import EvalPlan, TrainPlan
from ctx_flax.data.pipeline import ON_BAD_IMAGE
from ctx_flax.data.transforms import check_normalisation


def check_settings(config: Any) -> None:
  """Raises ValueError for a field that no batch can be made with."""
  batches.check_settings(config)
  data = config.data
  if data.on_bad_image not in ON_BAD_IMAGE:
    raise ValueError(f'data.on_bad_image must be one of {ON_BAD_IMAGE}, but is {data.on_bad_image!r}')
  check_normalisation(data)
  for name in ('flip', 'crop_probability'):
    if not 0 <= data[name] <= 1:
      raise ValueError(f'data.{name} must be a probability, 0 to 1, but is {data[name]}')
  if data.max_objects < 1:
    raise ValueError(f'data.max_objects must be 1 or more, but is {data.max_objects}')
  for name, value in (('data.scales', data.scales), ('data.crop_scales', data.crop_scales)):
    if not value or not 1 <= min(value) <= max(value) <= data.long_side:
      raise ValueError(f'{name} must be 1 to data.long_side={data.long_side}, but are {value}')
  if not 1 <= config.eval.short_side <= data.long_side:
    raise ValueError(
      f'eval.short_side must be 1 to data.long_side={data.long_side}, but is {config.eval.short_side}'
    )
  if len(data.crop_sides) != 2 or not 1 <= data.crop_sides[0] <= data.crop_sides[1]:
    raise ValueError(f'data.crop_sides must be (least, largest), but is {data.crop_sides}')
  canvases.check_sides(data.canvases)


def check_canvases(source: CocoSource, config: Any, split: str) -> None:
  """Raises ValueError for the first image of a source that no canvas may be large enough for."""
  sizes = canvases.both_orientations(config.data.canvases)
  if split == 'train':
    resized = detection_draws.augmentation(config).largest_hw(source.hw)
  else:
    resized = detection_draws.resized_hw(source.hw, config.eval.short_side, config.data.long_side)[None]
  for hw in resized:
    canvases.check_fit(hw, sizes, source.name)


def train_batches(
  source: CocoSource, config: Any, start: int = 0, process: int = 0, processes: int = 1
) -> Batches:
  """Endless batches for the steps start, start + 1, ... of a run, see TrainPlan.

  An unreadable image is replaced by the next good one that fits into the canvas.

  Args:
    source: of the images.
    config: uses seed, train.batch_size (of all processes together) and data.
    start: the step of the first batch.
    process, processes: which rows are made here: part `process` of `processes` equal ones.

  Returns:
    Batches, to be closed. They raise BadImage for an unreadable image where config.data.on_bad_image is
    'error', and for too many in a row.

  Raises:
    ValueError: a setting is wrong, an image may get larger than all canvases, or the processes cannot share a
      batch.
  """
  check_settings(config)
  check_canvases(source, config, 'train')
  data = config.data
  sizes = canvases.both_orientations(data.canvases)
  augmentation = detection_draws.augmentation(config)
  plan = TrainPlan(source.hw, augmentation, sizes, config.train.batch_size, config.seed)
  element = TrainElement(source, plan, data.max_objects, data.on_bad_image)
  return batches.planned_batches(element, config, start, process, processes)


def eval_batches(
  source: CocoSource, config: Any, process: int = 0, processes: int = 1, start: int = 0
) -> Batches:
  """All images once, without their objects, see EvalPlan: those of each canvas in order.

  Unreadable ones weigh 0, as rows do that fill up the last batch of a canvas.

  Args:
    source: of the images.
    config: uses eval.{batch_size, short_side} and data.
    process, processes: as for `train_batches`; every process makes the same number of batches.
    start: the number of the first batch, from 0.

  Returns:
    Batches, to be closed. They raise what those of `train_batches` do.

  Raises:
    ValueError: as `train_batches`.
  """
  check_settings(config)
  check_canvases(source, config, 'test')
  data = config.data
  sizes = canvases.both_orientations(data.canvases)
  plan = detection_plan.eval_plan(
    source.hw, config.eval.short_side, data.long_side, sizes, config.eval.batch_size
  )
  element = EvalElement(source, plan, data.on_bad_image)
  return batches.eval_batches(element, len(plan.images), config, process, processes, start)


def describe_bad(source: CocoSource, index: int, config: Any) -> str:
  """'NAME: reason' of an image that cannot be read, or whose masks cannot, on one line of valid UTF-8."""

  def read(element: dict[str, Any]) -> None:
    detection_transforms.read_image(element)
    element['objects'].masks(np.arange(len(element['objects'].labels)))

  return elements.describe_bad(source, index, read)


@dataclasses.dataclass(frozen=True)
class TrainElement:
  """Number of a row, from the first of step 0 on -> the row."""

  source: CocoSource
  plan: TrainPlan
  max_objects: int
  on_bad_image: str

  def __call__(self, number: int) -> Row:
    step, row = divmod(number, self.plan.batch_size)
    _, canvas = self.plan.batch(step)

    def maker(draw: np.void) -> Callable[[dict[str, Any]], Row]:
      return lambda element: detection_transforms.train_row(element, draw, canvas, self.max_objects)

    candidates = ((int(draw['index']), maker(draw)) for draw in self.plan.candidates(step, row))
    return elements.first_good(self.source, candidates, self.on_bad_image, 'image')


@dataclasses.dataclass(frozen=True)
class EvalElement:
  """Number of a row -> the row."""

  source: CocoSource
  plan: EvalPlan
  on_bad_image: str

  def __call__(self, number: int) -> Row:
    index = int(self.plan.images[number])
    canvas = self.plan.canvases[self.plan.numbers[number]]
    at = self.plan.hw[index]
    row = lambda element: detection_transforms.eval_row(element, index, at, canvas)
    filling = lambda: detection_transforms.blank_row(canvas)
    element = elements.EvalElement(self.source, row, filling, self.on_bad_image)
    return element(index if index >= 0 else len(self.source))
