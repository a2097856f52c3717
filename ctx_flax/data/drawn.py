"""What the sets of images that are drawn here have in common."""

from typing import Any


def images_of(data: Any, split: str) -> int:
  """The number of images of a split: data.images_per_class of each class, a fifth as many to test."""
  if data.images_per_class < 1:
    raise ValueError(f'data.images_per_class must be 1 or more, but is {data.images_per_class}')
  return data.classes * (data.images_per_class if split == 'train' else -(-data.images_per_class // 5))
