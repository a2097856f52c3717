"""What is drawn for every image of an epoch: flip, sizes and crop, known before any image is read.

The policy is Swin's (https://arxiv.org/abs/2103.14030) as in its code and ConvNeXt's for MMDetection 2.11:
after the flip half of the images are resized to one of many sizes; the others to a smaller one, cropped, and
then resized as the first half.
"""

import dataclasses
from typing import Any

import numpy as np

DRAW = np.dtype(
  [
    ('index', np.int32),  # of the image
    ('flip', np.bool_),
    ('cropped', np.bool_),  # if not, first_hw is the size of the image and the crop all of it
    ('first_hw', np.int32, 2),  # before the crop
    ('crop', np.int32, 4),  # top, left, height, width
    ('hw', np.int32, 2),  # in the batch
  ]
)


def resized_hw(hw: np.ndarray, short: Any, long: int) -> np.ndarray:
  """Sizes (..., 2) after resizing so that the short side is `short`, unless the long one would exceed `long`.

  The rule of mmcv's imrescale; sides are rounded separately, and are 1 at least.
  """
  hw = np.asarray(hw, np.int64)
  factor = np.minimum(long / hw.max(axis=-1), short / hw.min(axis=-1))
  return np.maximum((hw * factor[..., None] + 0.5).astype(np.int32), 1)


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """What is random about the images of an epoch. Attributes are fields of config.data."""

  flip: float
  scales: tuple
  long_side: int
  crop_probability: float
  crop_scales: tuple
  crop_sides: tuple

  def draw(self, rng: np.random.Generator, hw: np.ndarray) -> np.ndarray:
    """One draw of dtype DRAW (n,) for each image of sizes (n, 2), in their order."""
    hw = np.asarray(hw, np.int32)
    # As many numbers whatever the settings: a flip less leaves all else as it was.
    flip, crop, scale, crop_scale, *places = rng.random((8, len(hw)))
    draws = np.zeros(len(hw), DRAW)
    draws['index'] = np.arange(len(hw))
    draws['flip'] = flip < self.flip
    draws['cropped'] = crop < self.crop_probability
    smaller = resized_hw(hw, _choice(self.crop_scales, crop_scale), self.long_side)
    first = np.where(draws['cropped'][:, None], smaller, hw)
    low, high = self.crop_sides
    drawn = [
      _between(np.minimum(side, low), np.minimum(side, high), u)
      for side, u in zip(first.T, places[:2], strict=True)
    ]
    size = np.where(draws['cropped'][:, None], np.stack(drawn, axis=-1), first)
    offset = _between(0, first - size, np.stack(places[2:], axis=-1))
    draws['first_hw'], draws['crop'] = first, np.concatenate([offset, size], axis=-1)
    draws['hw'] = resized_hw(size, _choice(self.scales, scale), self.long_side)
    return draws

  def largest_hw(self, hw: np.ndarray) -> np.ndarray:
    """Sizes (k, n, 2) of images of sizes (n, 2): what fits them fits whatever is drawn."""
    scale, long = max(self.scales), self.long_side
    largest = []
    if self.crop_probability < 1:
      largest.append(resized_hw(hw, scale, long))
    for crop_scale in self.crop_scales if self.crop_probability else ():
      first = resized_hw(hw, crop_scale, long)
      low, high = (np.minimum(first, side) for side in self.crop_sides)
      # Of the tallest crops, and of the widest: the largest long side, and the largest short one across.
      ratio = high / low[:, ::-1]
      along, across = np.minimum(long, scale * ratio), np.minimum(scale, long * ratio)
      for axis in range(2):
        largest.append(np.where(np.arange(2) == axis, along, across))
    return np.maximum((np.stack(largest) + 0.5).astype(np.int32), 1)


def augmentation(config: Any) -> Augmentation:
  """The Augmentation of a config."""
  return Augmentation(**{field.name: config.data[field.name] for field in dataclasses.fields(Augmentation)})


def _choice(values: tuple, u: np.ndarray) -> np.ndarray:
  """One of the values for each uniform number."""
  return np.asarray(values)[_between(0, len(values) - 1, u)]


def _between(low: Any, high: Any, u: np.ndarray) -> np.ndarray:
  """A whole number from low to high, both included, for each uniform number in [0, 1)."""
  return (low + np.floor(u * (high - low + 1))).astype(np.int32)
