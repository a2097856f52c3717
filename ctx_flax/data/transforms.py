"""What happens to one image, from its file to what the network sees. NumPy and Pillow.

Training: random crop, flip, affine map, RandAugment, normalisation, erasing. Evaluation: centre crop and
normalisation. Everything random comes from the generator that is passed in.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ctx_flax.data import crops, decode, erasing, rand_augment


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """What training does to an image that has the network's size. Attributes are fields of config.data.

  Two generators of the same seed give two images of one size the same draws, the noise of erasing included.
  """

  mean: tuple
  std: tuple
  flip: float
  rotate: float
  shift: float
  scale: float
  rand_augment: dict
  erasing: float

  def augment(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Flip, affine map and RandAugment of a Pillow image, mode L or RGB."""
    if self.flip and rng.random() < self.flip:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if self.rotate or self.shift or self.scale:
      image = random_affine(image, rng, rotate=self.rotate, shift=self.shift, scale=self.scale)
    if self.rand_augment['operations']:
      fill = tuple(min(255, round(255 * m)) for m in np.broadcast_to(self.mean, 3).tolist())
      image = rand_augment.rand_augment(image.convert('RGB'), rng, fill=fill, **self.rand_augment)
    return image

  def to_pixels(self, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Normalisation and erasing of what `augment` returned: -> float32 (h, w, 3)."""
    pixels = normalise(image, self.mean, self.std)
    return erasing.erase(pixels, rng, self.erasing) if self.erasing else pixels


@dataclasses.dataclass(frozen=True)
class TrainTransform(Augmentation):
  """(element of a source, np.random.Generator) -> float32 (s, s, 3). Attributes are fields of config.data.

  Raises:
    BadImage: when called, for a file that cannot be read.
  """

  image_size: int
  crop_scale: tuple
  crop_aspect: tuple

  def __call__(self, element: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    image = decode.open_image(element)
    w, h = image.size
    box: tuple[float, ...] = (0, 0, w, h)
    if self.crop_scale:
      box = crops.random_box(w, h, rng, self.crop_scale, self.crop_aspect)
    image = decode.cut(image, box, (self.image_size, self.image_size))
    return self.to_pixels(self.augment(image, rng), rng)


@dataclasses.dataclass(frozen=True)
class EvalTransform:
  """Element of a source -> float32 (s, s, 3): the centre square. BadImage for a file that cannot be read."""

  image_size: int
  crop_ratio: float
  mean: tuple
  std: tuple

  def __call__(self, element: dict[str, Any]) -> np.ndarray:
    image = decode.open_image(element)
    w, h = image.size
    box = crops.centre_box(w, h, self.image_size, self.crop_ratio)
    image = decode.cut(image, box, (self.image_size, self.image_size))
    return normalise(image, self.mean, self.std)

  def blank(self) -> np.ndarray:
    """Stands for an image that cannot be read, and fills up a batch."""
    return np.zeros((self.image_size, self.image_size, 3), np.float32)


def train_transform(config: Any) -> TrainTransform:
  """The TrainTransform of a config; its random numbers depend on nothing but the generator it is given."""
  fields = {field.name: config.data[field.name] for field in dataclasses.fields(TrainTransform)}
  return TrainTransform(**fields | {'rand_augment': dict(config.data.rand_augment)})


def eval_transform(config: Any) -> EvalTransform:
  """The EvalTransform of a config."""
  data = config.data
  return EvalTransform(data.image_size, config.eval.crop_ratio, data.mean, data.std)


def check_settings(config: Any) -> None:
  """Raises ValueError naming the first field of the transforms that has no meaning."""
  data, augment = config.data, config.data.rand_augment
  if data.image_size < 1:
    raise ValueError(f'data.image_size must be 1 or more, but is {data.image_size}')
  check_normalisation(data)
  if data.crop_scale and not (
    len(data.crop_scale) == 2 and 0 < data.crop_scale[0] <= data.crop_scale[1] <= 1
  ):
    raise ValueError(f'data.crop_scale must be (), or (least, largest) share, but is {data.crop_scale}')
  if len(data.crop_aspect) != 2 or not 0 < data.crop_aspect[0] <= data.crop_aspect[1]:
    raise ValueError(f'data.crop_aspect must be (least, largest) above 0, but is {data.crop_aspect}')
  if not 0 < config.eval.crop_ratio <= 1:
    raise ValueError(f'eval.crop_ratio must be above 0 and at most 1, but is {config.eval.crop_ratio}')
  if not 0 <= augment.magnitude <= 10:
    raise ValueError(f'data.rand_augment.magnitude must be 0 to 10, but is {augment.magnitude}')
  probabilities = {name: data[name] for name in ('flip', 'erasing', 'mix_probability', 'mix_switch')}
  for name, value in (probabilities | {'rand_augment.probability': augment.probability}).items():
    if not 0 <= value <= 1:
      raise ValueError(f'data.{name} must be a probability, 0 to 1, but is {value}')
  amounts = {name: data[name] for name in ('rotate', 'shift', 'scale', 'mixup', 'cutmix')}
  amounts |= {f'rand_augment.{name}': augment[name] for name in ('operations', 'magnitude_std')}
  for name, value in amounts.items():
    if value < 0:
      raise ValueError(f'data.{name} must be 0 (off) or more, but is {value}')


def check_normalisation(data: Any) -> None:
  """Raises ValueError if data.mean or data.std has no meaning."""
  for name in ('mean', 'std'):
    if len(data[name]) not in (1, 3):
      raise ValueError(f'data.{name} must hold 1 or 3 values, but is {data[name]}')
  if min(data.std) <= 0:
    raise ValueError(f'data.std must be above 0, but is {data.std}')


def affine(
  image: Image.Image, angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0), scale: float = 1.0
) -> Image.Image:
  """Turns, scales and shifts an image about its centre; bilinear between pixels, zero outside.

  Args:
    image: a Pillow image, mode L or RGB.
    angle: degrees, counter-clockwise as seen.
    shift: (dy, dx) in pixels, down and to the right, after turning and scaling.
    scale: factor of the size; above 1 enlarges.

  Returns:
    A Pillow image of the same size and mode.
  """
  w, h = image.size
  dy, dx = shift
  cos, sin = math.cos(math.radians(angle)) / scale, math.sin(math.radians(angle)) / scale
  # Pillow asks for the way back, from a pixel (x, y) of the result to one of the source. It measures from
  # the image's corner, so that the centre is at half the size and needs no extra half pixel.
  cy, cx = h / 2, w / 2
  back = (
    *(cos, -sin, cx - cos * (cx + dx) + sin * (cy + dy)),
    *(sin, cos, cy - sin * (cx + dx) - cos * (cy + dy)),
  )
  return image.transform((w, h), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)


def random_affine(
  image: Image.Image, rng: np.random.Generator, *, rotate: float, shift: float, scale: float
) -> Image.Image:
  """`affine` with an angle within +-rotate degrees, a shift within +-shift * side and a factor from
  1 / (1 + scale) to 1 + scale, each uniform (the factor in its logarithm)."""
  w, h = image.size
  # Always four draws: setting one range to zero leaves the others' values as they were.
  angle, dy, dx, factor = rng.uniform(-1.0, 1.0, size=4)
  return affine(image, angle * rotate, (dy * shift * h, dx * shift * w), math.exp(factor * math.log1p(scale)))


def normalise(
  image: Image.Image | npt.NDArray[np.uint8], mean: npt.ArrayLike, std: npt.ArrayLike
) -> np.ndarray:
  """(pixel / 255 - mean) / std per channel.

  Args:
    image: a Pillow image, mode L or RGB, or uint8 (..., h, w, 3), such as the frames of a clip.
    mean, std: one value for all channels, or one for each of the three.

  Returns:
    float32 (..., h, w, 3). Gray images are repeated to three channels, so that every network takes every
    image.
  """
  mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
  pixels = np.asarray(image)
  if pixels.ndim == 2:
    pixels = pixels[..., None]
  *rows, w, c = pixels.shape
  channels = max(c, mean.size, std.size)
  # One multiplication and one addition for each value, in whole rows: NumPy is slow along an axis of three.
  factor, less = (np.tile(np.broadcast_to(np.float32(v), channels), w) for v in (1 / (255 * std), mean / std))
  pixels = np.broadcast_to(pixels, (*rows, w, channels)).reshape(*rows, w * channels) * factor
  pixels -= less
  pixels = pixels.reshape(*rows, w, channels)
  return pixels if channels == 3 else np.repeat(pixels, 3, axis=-1)
