"""A picture of a batch: what the network sees, with captions."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ctx_flax import files
from ctx_flax.data.fonts import font_file

SIDE = 128  # pixels of an image in the grid, at least
GAP = 4
LINE = 16  # height of a caption


def captions(batch: dict[str, np.ndarray], class_names: Sequence[str]) -> list[str]:
  """The class of every row, and of mixed images both with their shares: 'cat' or 'cat 70 dog 30'."""
  labels = batch['label']
  if 'lam' not in batch:
    return [class_names[label] for label in labels]
  return [
    class_names[a] if lam == 1 else f'{class_names[a]} {100 * lam:.0f} {class_names[b]} {100 - 100 * lam:.0f}'
    for a, b, lam in zip(labels, batch['other_label'], batch['lam'], strict=True)
  ]


def to_pixels(images: Any, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
  """Normalised images (..., 3) -> uint8 RGB, what is out of range cut off. uint8 stays as it is."""
  if np.asarray(images).dtype == np.uint8:
    return np.asarray(images)
  pixels = np.asarray(images) * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
  return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def save_image_grid(
  images: Any,
  path: str | os.PathLike[str],
  mean: Sequence[float],
  std: Sequence[float],
  captions: Sequence[str],
) -> None:
  """Writes a PNG of about as many columns as rows, or of a row of frames for each clip, atomically.

  Args:
    images: (n, h, w, 3), or clips (n, t, h, w, 3): float, normalised; or uint8.
    path: of the file.
    mean, std: what they were normalised with.
    captions: n strings, cut to the width of an image or a row of frames.
  """
  pixels = to_pixels(images, mean, std)
  n, *frames, h, w, _ = pixels.shape
  scale = max(1, -(-SIDE // max(h, w)))
  columns = 1 if frames else math.ceil(math.sqrt(n))
  if frames:
    w *= frames[0]
    pixels = pixels.swapaxes(1, 2).reshape(n, h, w, 3)
  width, height = w * scale, h * scale
  rows = -(-n // columns)
  size = columns * (width + GAP) + GAP, rows * (height + LINE + GAP) + GAP
  grid = Image.new('RGB', size, 'white')
  # Not Pillow's own font: it has few letters beside the Latin ones.
  draw, font = ImageDraw.Draw(grid), ImageFont.truetype(font_file('DejaVuSans'), LINE - 5)
  for i, (image, caption) in enumerate(zip(pixels, captions, strict=True)):
    x = GAP + i % columns * (width + GAP)
    y = GAP + i // columns * (height + LINE + GAP)
    grid.paste(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST), (x, y))
    caption = files.printable(caption)
    while caption and draw.textlength(caption, font) > width:
      caption = caption[:-1]
    draw.text((x, y + height), caption, 'black', font)
  with files.replacing(path) as part:
    grid.save(part, 'PNG')
