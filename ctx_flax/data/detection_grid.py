"""A picture of images with the boxes and masks of their objects."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ctx_flax import files
from ctx_flax.data.fonts import font_file

SIDE = (256, 512)  # pixels of the longer side of a canvas in the grid: enlarged below, reduced above
GAP = 4
LINE = 12  # height of a name
SHADE = 0.45  # of the colour in a mask
# Of the objects by turns: told apart on photographs, and by most who do not see red or green.
COLOURS = (
  *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0)),
  *((204, 121, 167), (255, 255, 255)),
)


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
    captions = [class_names[label] for label in labels[there]]
    images.append(draw_objects(image, boxes[there], captions, masks, hw))
  columns = math.ceil(math.sqrt(len(images)))
  w, h = images[0].size
  size = columns * (w + GAP) + GAP, -(-len(images) // columns) * (h + GAP) + GAP
  grid = Image.new('RGB', size, 'white')
  for i, picture in enumerate(images):
    grid.paste(picture, (GAP + i % columns * (w + GAP), GAP + i // columns * (h + GAP)))
  with files.replacing(path) as part:
    grid.save(part, 'PNG')


def draw_objects(
  image: np.ndarray,
  boxes: np.ndarray,
  captions: Sequence[str],
  masks: np.ndarray | None = None,
  image_hw: Any = None,
) -> Image.Image:
  """A picture of an image with objects: masks in colours, boxes and captions.

  Args:
    image: uint8 (h, w, 3).
    boxes: float (n, 4), (x1, y1, x2, y2) in pixels.
    captions: n strings.
    masks: bool (n, h, w), if there are any.
    image_hw: (h, w) of the part that is image, if the rest is padding: it is framed.

  Returns:
    A Pillow image of the size of `image` times a factor: of a reasonable size on a screen.
  """
  h, w = image.shape[:2]
  pixels = image.astype(np.float32)
  colours = [COLOURS[i % len(COLOURS)] for i in range(len(boxes))]
  for mask, colour in zip(() if masks is None else masks, colours, strict=False):
    pixels[mask] += SHADE * (np.array(colour, np.float32) - pixels[mask])
  factor = min(max(1.0, SIDE[0] / max(h, w)), SIDE[1] / max(h, w))
  size = max(1, round(w * factor)), max(1, round(h * factor))
  picture = Image.fromarray(pixels.astype(np.uint8))
  picture = picture.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BOX)
  draw, font = ImageDraw.Draw(picture), ImageFont.truetype(font_file('DejaVuSans'), LINE - 2)
  if image_hw is not None and tuple(image_hw) != (h, w):
    draw.rectangle((-1, -1, image_hw[1] * factor, image_hw[0] * factor), outline='gray')
  for box, colour, caption in zip(boxes, colours, captions, strict=True):
    x1, y1, x2, y2 = (float(value) * factor for value in box)
    draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour)
    place = x1 + 1, max(0, y1 - LINE)
    draw.text(place, files.printable(caption), colour, font, stroke_width=1, stroke_fill='black')
  return picture
