"""Photographs that do not exist: one to five cut-outs of some, pasted on parts of others. OpenCV.

An image follows from the seed, the split and its number. Instances differ in size, angle, side, contrast and
colour, have soft edges and cover one another by half at most.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from ctx_flax.data import coco_masks, photographs
from ctx_flax.data.coco_tiny_outlines import CLASSES, cutouts

BACKGROUNDS = {  # name -> (package, file in it)
  'temple': ('sklearn', 'datasets/images/china.jpg'),
  'galaxies': ('skimage', 'data/hubble_deep_field.jpg'),
  'tissue': ('skimage', 'data/ihc.png'),
  'rocket': ('skimage', 'data/rocket.jpg'),
  'retina': ('skimage', 'data/retina.jpg'),
  'grass': ('skimage', 'data/grass.png'),
  'gravel': ('skimage', 'data/gravel.png'),
  'brick': ('skimage', 'data/brick.png'),
}
SIZES = ((120, 160), (160, 120), (128, 128), (112, 160))  # (h, w)
MOST = 5  # instances that are pasted
SIDE = (22.0, 84.0)  # root of an instance's area, pixels
STRETCH = 0.1  # of the size, either way
ROTATE = 25.0  # degrees either way
UPRIGHT = 0.3  # share of instances that are not turned
PLACE = (0.1, 0.9)  # of an instance's centre, shares of the sides
CONTRAST = (0.8, 1.2)
OFFSET = 20.0  # of all channels, either way
GAIN = (0.88, 1.12)  # of each channel
COVERED = 0.5  # of what was seen of an instance, at most, by another
LEAST = (120, 80)  # pixels of an instance when it is pasted, and at the end
NOISE = 6.0  # standard deviation, at most
FINE = 4  # an outline is followed on a grid so much finer than the pixels
TOLERANCE = 1.5  # of that grid, within which an outline is simplified


def settings() -> dict[str, Any]:
  """Everything that the images follow from, but for their seed and number."""
  values = {name: value for name, value in globals().items() if name.isupper()}
  values |= {'BACKGROUNDS': [*BACKGROUNDS], 'CLASSES': [*CLASSES], 'SIZES': [*map(list, SIZES)]}
  return {name: list(value) if isinstance(value, tuple) else value for name, value in sorted(values.items())}


@dataclasses.dataclass(frozen=True)
class Instance:
  """An instance in an image.

  Attributes:
    label: its class, an index of CLASSES.
    mask: bool (h, w), the part of it that is seen.
  """

  label: int
  mask: np.ndarray

  def box(self) -> tuple[int, int, int, int]:
    """(x, y, w, h) in pixels."""
    rows, columns = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y

  def segmentation(self) -> Any:
    """Its mask as COCO writes it: polygons, or run lengths if it has a hole or is too thin for them."""
    return outlines(self.mask) or coco_masks.encode(self.mask)


def render(seed: int, split: str, index: int) -> tuple[np.ndarray, list[Instance]]:
  """(uint8 (h, w, 3) RGB, the instances in it, one at least) of image `index` of a split."""
  attempt = 0
  while True:
    rng = np.random.default_rng((seed, split == 'test', index, attempt))
    h, w = SIZES[rng.integers(len(SIZES))]
    image, instances = _paste(rng, _background(rng, h, w))
    if instances:
      return image, instances
    attempt += 1


def outlines(mask: np.ndarray) -> list[list[float]]:
  """Polygons of a mask, [x1, y1, x2, y2, ...] each; [] if it has a hole or a part that no polygon shows."""
  import cv2

  fine = mask.astype(np.uint8).repeat(FINE, axis=0).repeat(FINE, axis=1)
  contours, levels = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
  polygons = [cv2.approxPolyDP(contour, TOLERANCE, True)[:, 0] for contour in contours]
  if (levels[0, :, 3] >= 0).any() or min(map(len, polygons)) < 3:
    return []
  # From the middles of the finer pixels to the corners of the pixels.
  return [((polygon + 0.5) / FINE).round(2).ravel().tolist() for polygon in polygons]


def _background(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
  """A part of a photograph as float32 (h, w, 3), perhaps mirrored, in other colours."""
  import cv2

  photograph = _background_photograph(int(rng.integers(len(BACKGROUNDS))))
  full_h, full_w = photograph.shape[:2]
  part_h = min(full_h, max(h, full_h * rng.uniform(0.35, 1.0) * 0.8))
  part_w = int(min(full_w, part_h * w / h))
  part_h = int(part_w * h / w)
  y, x = (int(rng.integers(side + 1)) for side in (full_h - part_h, full_w - part_w))
  part = photograph[y : y + part_h, x : x + part_w]
  part = cv2.resize(part, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32)
  if rng.random() < 0.5:
    part = part[:, ::-1]
  gain = rng.uniform(0.6, 1.1) * rng.uniform(0.8, 1.2, 3)
  return (part * gain + rng.uniform(-15, 15)).astype(np.float32)


@functools.cache
def _background_photograph(number: int) -> np.ndarray:
  return photographs.shipped(*BACKGROUNDS[tuple(BACKGROUNDS)[number]])


def _paste(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, list[Instance]]:
  """Pastes instances on an image, which is used up: (uint8 (h, w, 3), the instances that are seen)."""
  import cv2

  seen: list[Instance] = []
  for _ in range(1 + rng.integers(MOST)):
    label = int(rng.integers(len(CLASSES)))
    pixels, opaque = _placed(rng, label, image.shape[1], image.shape[0])
    mask = opaque > 0.5
    covered = [(instance.mask & mask).sum() / max(instance.mask.sum(), 1) for instance in seen]
    if mask.sum() < LEAST[0] or max(covered, default=0) > COVERED:
      continue
    seen = [Instance(instance.label, instance.mask & ~mask) for instance in seen] + [Instance(label, mask)]
    soft = cv2.GaussianBlur(opaque, (0, 0), 0.6)[..., None]
    pixels = (pixels - 128) * rng.uniform(*CONTRAST) + 128 + rng.uniform(-OFFSET, OFFSET)
    image = image * (1 - soft) + pixels * rng.uniform(*GAIN, 3) * soft
  image = image + rng.normal(size=(*image.shape[:2], 1)) * rng.uniform(0, NOISE)
  return np.clip(image, 0, 255).astype(np.uint8), [
    instance for instance in seen if instance.mask.sum() >= LEAST[1]
  ]


def _placed(rng: np.random.Generator, label: int, w: int, h: int) -> tuple[np.ndarray, np.ndarray]:
  """An instance somewhere in an image of that size: (float32 (h, w, 3), how opaque it is, float32 (h, w))."""
  import cv2

  instances = cutouts(CLASSES[label])
  pixels, mask = instances[rng.integers(len(instances))]
  side = np.exp(rng.uniform(*np.log(SIDE)))
  scale = side / np.sqrt((mask > 0).sum())
  angle = np.radians(rng.uniform(-ROTATE, ROTATE)) * (rng.random() >= UPRIGHT)
  turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
  turn = turn @ np.diag([scale if rng.random() < 0.5 else -scale, scale])
  turn = turn * rng.uniform(1 - STRETCH, 1 + STRETCH)
  centre = rng.uniform(*PLACE, 2) * (w, h)
  matrix = np.column_stack([turn, centre - turn @ (mask.shape[1] / 2, mask.shape[0] / 2)])
  if scale < 0.8:  # else what is made smaller would be jagged
    pixels = cv2.GaussianBlur(pixels, (0, 0), 0.45 / scale)
  warped = cv2.warpAffine(pixels, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
  opaque = cv2.warpAffine(mask, matrix, (w, h), flags=cv2.INTER_LINEAR)
  return warped.astype(np.float32), opaque.astype(np.float32) / 255
