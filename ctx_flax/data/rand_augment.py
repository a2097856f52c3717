"""RandAugment with increasing severities: the operations and formulas of timm's 'rand-m9-mstd0.5-inc1'.

Method: https://arxiv.org/abs/1909.13719. Operations take and return 8-bit RGB Pillow images. A level goes
from 0 to 10; every operation gets stronger with it.
"""

from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

BICUBIC = Image.Resampling.BICUBIC
Fill = tuple[int, ...]  # a colour, RGB


def rotate(image: Image.Image, degrees: float, fill: Fill) -> Image.Image:
  """Counter-clockwise about the centre."""
  return image.rotate(degrees, BICUBIC, fillcolor=fill)


def shear_x(image: Image.Image, factor: float, fill: Fill) -> Image.Image:
  """Row y moves to the left by factor * y."""
  return _affine(image, (1, factor, 0, 0, 1, 0), fill)


def shear_y(image: Image.Image, factor: float, fill: Fill) -> Image.Image:
  """Column x moves up by factor * x."""
  return _affine(image, (1, 0, 0, factor, 1, 0), fill)


def translate_x(image: Image.Image, fraction: float, fill: Fill) -> Image.Image:
  """To the left by a fraction of the width."""
  return _affine(image, (1, 0, fraction * image.size[0], 0, 1, 0), fill)


def translate_y(image: Image.Image, fraction: float, fill: Fill) -> Image.Image:
  """Up by a fraction of the height."""
  return _affine(image, (1, 0, 0, 0, 1, fraction * image.size[1]), fill)


def posterize(image: Image.Image, bits: int, _: Fill) -> Image.Image:
  """Keeps so many of the eight bits; with 0, which level 10 means, the image is black."""
  return image.point([value & (0xFF00 >> bits) & 0xFF for value in range(256)] * 3)


def solarize(image: Image.Image, threshold: int, _: Fill) -> Image.Image:
  """Inverts the values from the threshold on."""
  return image.point([value if value < threshold else 255 - value for value in range(256)] * 3)


def solarize_add(image: Image.Image, addend: int, _: Fill) -> Image.Image:
  """Adds to the values below 128."""
  return image.point([min(255, value + addend) if value < 128 else value for value in range(256)] * 3)


def _affine(image, back, fill):
  return image.transform(image.size, Image.Transform.AFFINE, back, BICUBIC, fillcolor=fill)


def _enhance(kind):
  return lambda image, factor, _: kind(image).enhance(factor)


def _signed(largest):
  """level / 10 of the largest value, either way."""
  return lambda level, sign: sign * level / 10 * largest


def _factor(level, sign):
  return max(0.1, 1 + sign * level / 10 * 0.9)


def _nothing(level, sign):
  return None


# name -> (from a level in 0..10 and a random sign to the argument, the operation (image, argument, fill)).
OPERATIONS: dict[str, tuple[Any, Any]] = {
  'auto_contrast': (_nothing, lambda image, *_: ImageOps.autocontrast(image)),
  'equalize': (_nothing, lambda image, *_: ImageOps.equalize(image)),
  'invert': (_nothing, lambda image, *_: ImageOps.invert(image)),
  'rotate': (_signed(30), rotate),
  'posterize': (lambda level, _: 4 - int(level / 10 * 4), posterize),
  'solarize': (lambda level, _: 256 - int(level / 10 * 256), solarize),
  'solarize_add': (lambda level, _: min(128, int(level / 10 * 110)), solarize_add),
  'color': (_factor, _enhance(ImageEnhance.Color)),
  'contrast': (_factor, _enhance(ImageEnhance.Contrast)),
  'brightness': (_factor, _enhance(ImageEnhance.Brightness)),
  'sharpness': (_factor, _enhance(ImageEnhance.Sharpness)),
  'shear_x': (_signed(0.3), shear_x),
  'shear_y': (_signed(0.3), shear_y),
  'translate_x': (_signed(0.45), translate_x),
  'translate_y': (_signed(0.45), translate_y),
}
NAMES = tuple(OPERATIONS)


def draw(
  rng: np.random.Generator, operations: int, magnitude: float, magnitude_std: float, probability: float
) -> list[tuple[str, Any]]:
  """The [(name, argument), ...] for one image.

  Of `operations` names, drawn with replacement, each is applied with the given probability, at a level from
  the normal distribution of mean `magnitude` and standard deviation `magnitude_std`, limited to 0..10.
  """
  drawn = []
  for number in rng.integers(len(NAMES), size=operations):
    name = NAMES[number]
    level = min(max(rng.normal(magnitude, magnitude_std), 0.0), 10.0)
    sign = 1 if rng.random() < 0.5 else -1
    if rng.random() < probability:
      drawn.append((name, OPERATIONS[name][0](level, sign)))
  return drawn


def rand_augment(
  image: Image.Image,
  rng: np.random.Generator,
  *,
  operations: int,
  magnitude: float,
  magnitude_std: float,
  probability: float,
  fill: Fill,
) -> Image.Image:
  """Applies what `draw` draws to an RGB image; `fill` is the colour of what comes in from outside."""
  for name, argument in draw(rng, operations, magnitude, magnitude_std, probability):
    image = OPERATIONS[name][1](image, argument, fill)
  return image
