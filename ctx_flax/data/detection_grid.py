"""A picture of images with the boxes and masks of their objects."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ctx_flax import files
from ctx_flax.data.object_drawing import draw_objects

SIDE = (256, 512)  # pixels of the longer side of a canvas in the grid: enlarged below, reduced above
GAP = 4


def save_detection_grid(
  batch: dict[str, Any], path: str | os.PathLike[str], class_names: Sequence[str], most: int = 16
) -> None:
  """Writes the first images of a training batch with their objects as a PNG, atomically.

  Args:
    batch: of ctx_flax.data.detection_pipeline.train_batches.
    path: of the file.
    class_names: in the order of the labels.
    most: of the images.
  """
  images = []
  for image, hw, boxes, labels, bits in zip(
    *(np.asarray(batch[name])[:most] for name in ('image', 'image_hw', 'boxes', 'labels', 'masks')),
    strict=True,
  ):
    there = labels >= 0
    masks = np.unpackbits(bits[there], axis=-1).astype(bool)
    images.append(draw_canvas(image, hw, boxes[there], labels[there], masks, class_names))
  save_grid(images, path, columns=math.ceil(math.sqrt(len(images))))


def save_grid(images: Sequence[np.ndarray], path: str | os.PathLike[str], columns: int) -> None:
  """Writes pictures uint8 (h, w, 3) as a PNG, row by row, in cells of the size of the largest, atomically."""
  h, w = (max(image.shape[axis] for image in images) for axis in (0, 1))
  size = columns * (w + GAP) + GAP, -(-len(images) // columns) * (h + GAP) + GAP
  grid = Image.new('RGB', size, 'white')
  for i, drawn in enumerate(images):
    grid.paste(Image.fromarray(drawn), (GAP + i % columns * (w + GAP), GAP + i // columns * (h + GAP)))
  with files.replacing(path) as part:
    grid.save(part, 'PNG')


def draw_canvas(
  pixels: np.ndarray,
  image_hw: Sequence[int],
  boxes: np.ndarray,
  labels: np.ndarray,
  masks: np.ndarray,
  class_names: Sequence[str],
) -> np.ndarray:
  """An image with its objects, and a frame where the padding begins.

  Args:
    pixels: uint8 (h, w, 3), the canvas.
    image_hw: (h, w) of the part of it that is image.
    boxes, labels, masks, class_names: see `draw_objects`.

  Returns:
    uint8 (h * factor, w * factor, 3), of a reasonable size on a screen.
  """
  h, w, _ = pixels.shape
  factor = min(max(1.0, SIDE[0] / max(h, w)), SIDE[1] / max(h, w))
  drawn = draw_objects(pixels, boxes, labels, class_names, masks=masks, scale=factor)
  if tuple(image_hw) == (h, w):
    return drawn
  picture = Image.fromarray(drawn)
  ImageDraw.Draw(picture).rectangle((-1, -1, image_hw[1] * factor, image_hw[0] * factor), outline='gray')
  return np.asarray(picture)
