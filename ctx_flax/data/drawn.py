"""What the sets of images that are drawn here have in common."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
  """Images that follow from the seed, the split and their index.

  A source of them adds `__getitem__`. Image i shows class i % num_classes.

  Attributes:
    class_names: in the order of the labels.
    image_size, length: the side of the images, and how many there are.
    split: 'train' or 'test'.
    seed: of all draws.
  """

  class_names: tuple[str, ...]
  image_size: int
  length: int
  split: str
  seed: int

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  def __len__(self) -> int:
    return self.length

  def name(self, index: int) -> str:
    return f'{self.split}[{index}]'

  def generator(self, index: int) -> np.random.Generator:
    """What all that is random about an image follows from."""
    return np.random.default_rng((self.seed, self.split == 'test', index))


def options_of(data: Any, split: str) -> dict[str, Any]:
  """The attributes of `Drawn` that follow from config.data, but for the length."""
  return {'image_size': data.image_size, 'split': split, 'seed': data.split_seed}


def images_of(data: Any, split: str) -> int:
  """The number of images of a split: data.images_per_class of each class, a fifth as many to test."""
  if data.images_per_class < 1:
    raise ValueError(f'data.images_per_class must be 1 or more, but is {data.images_per_class}')
  return data.classes * (data.images_per_class if split == 'train' else -(-data.images_per_class // 5))
