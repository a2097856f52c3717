"""Which part of an image is seen: a random one in training, the centre in evaluation."""

import math

import numpy as np

ATTEMPTS = 10  # to place a random crop before the centre is taken


def random_box(
  width: int, height: int, rng: np.random.Generator, scale: tuple[float, float], aspect: tuple[float, float]
) -> tuple[float, float, float, float]:
  """The box of a random resized crop (https://arxiv.org/abs/1409.4842), as (left, top, right, bottom).

  Its share of the area is uniform in `scale`, its width / height uniform in the logarithm of `aspect`. Where
  no attempt fits into the image, the largest centred box whose width / height is within `aspect`.
  """
  for _ in range(ATTEMPTS):
    area = width * height * rng.uniform(*scale)
    ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
    w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < w <= width and 0 < h <= height:
      left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
      return left, top, left + w, top + h
  ratio = min(max(width / height, aspect[0]), aspect[1])
  across, down = min(width, height * ratio), min(height, width / ratio)
  return (width - across) / 2, (height - down) / 2, (width + across) / 2, (height + down) / 2


def centre_box(width: int, height: int, size: int, crop_ratio: float) -> tuple[float, float, float, float]:
  """The centred square that is left when the short side becomes size / crop_ratio and size is cut out."""
  side = min(width, height) * size / math.floor(size / crop_ratio)
  return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2
