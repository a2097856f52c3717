"""Random erasing (https://arxiv.org/abs/1708.04896): a rectangle becomes noise, pixel by pixel."""

import math

import numpy as np

AREA = (0.02, 1 / 3)  # share of the image
ASPECT = (0.3, 1 / 0.3)  # height / width
ATTEMPTS = 10  # to draw a rectangle that fits


def random_rectangle(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int] | None:
  """(top, left, height, width) of a rectangle inside the image, or None where no attempt fits."""
  for _ in range(ATTEMPTS):
    area = height * width * rng.uniform(*AREA)
    ratio = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
    h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < h < height and 0 < w < width:
      return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
  return None


def erase(image: np.ndarray, rng: np.random.Generator, probability: float) -> np.ndarray:
  """Replaces a random rectangle of a normalised image (h, w, c) by standard normal noise, in place."""
  if rng.random() < probability:
    rectangle = random_rectangle(image.shape[0], image.shape[1], rng)
    if rectangle is not None:
      top, left, h, w = rectangle
      image[top : top + h, left : left + w] = rng.standard_normal((h, w, image.shape[2]), image.dtype)
  return image
