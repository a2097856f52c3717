"""Objects drawn on their image: boxes, masks, and classes with scores."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ctx_flax import files
from ctx_flax.data.fonts import font_file

LINE = 2  # pixels of the frame of a box
TINT = 0.45  # share of a mask's colour in its pixels
LUMINANCE = 0.299, 0.587, 0.114  # of red, green, blue
LETTERS = 11  # pixels, height of the font
TURN = 0.6180339887  # of the circle of hues from class to class, the golden ratio: all stay apart
SHADES = (0.75, 1.0), (0.45, 1.0), (0.85, 0.8), (0.6, 0.9)  # saturation and value, in turn


def class_colour(label: int) -> tuple[int, int, int]:
  """The colour of a class, uint8 RGB: the same in all pictures."""
  saturation, value = SHADES[label % len(SHADES)]
  red, green, blue = colorsys.hsv_to_rgb((0.05 + TURN * label) % 1, saturation, value)
  return round(255 * red), round(255 * green), round(255 * blue)


def draw_objects(
  pixels: np.ndarray,
  boxes: np.ndarray,
  labels: np.ndarray,
  class_names: Sequence[str],
  *,
  scores: np.ndarray | None = None,
  masks: np.ndarray | None = None,
  scale: float = 1.0,
) -> np.ndarray:
  """An image with its objects: a tinted and outlined mask, a box and a caption each.

  The object with the highest score, without scores the first, is drawn last, so that it lies on top. Captions
  stand above their boxes, or where there is room for them.

  Args:
    pixels: uint8 (h, w, 3).
    boxes: float (n, 4), x1 y1 x2 y2 in pixels of the image; what lies outside is cut off.
    labels: int (n,).
    class_names: of the labels.
    scores: float (n,), shown in percent.
    masks: bool (n, h, w).
    scale: by which the image is enlarged or reduced before anything is drawn: captions have one size.

  Returns:
    uint8 (h * scale, w * scale, 3).
  """
  h, w, _ = pixels.shape
  size = max(1, round(w * scale)), max(1, round(h * scale))
  drawn = np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
  order = range(len(boxes))[::-1] if scores is None else np.argsort(scores, kind='stable').tolist()
  if masks is not None:
    for n in order:
      mask = Image.fromarray(masks[n]).resize(size, Image.Resampling.NEAREST)
      _paint(drawn, np.asarray(mask), class_colour(int(labels[n])))
  image = Image.fromarray(drawn)
  draw = ImageDraw.Draw(image)
  # A pixel reaches from its number to the next: the frame of a box from 2 to 5 is of the pixels 2, 3, 4.
  factors = np.tile([size[0] / w, size[1] / h], 2)
  corners = np.asarray(boxes, np.float64).reshape(-1, 4) * factors
  corners = np.clip(np.rint(corners), 0, np.tile(size, 2)).astype(int)
  for n in order:
    x1, y1, x2, y2 = corners[n].tolist()
    frame = x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)
    draw.rectangle(frame, outline=class_colour(int(labels[n])), width=LINE)
  # Pillow's own font has few letters beside the Latin ones.
  font = ImageFont.truetype(font_file('DejaVuSans'), LETTERS)
  taken: list[tuple[int, int, int, int]] = []
  for n in reversed(order):  # the best object's caption has the first choice of its place
    caption = files.printable(class_names[int(labels[n])])
    if scores is not None:
      caption = f'{caption} {100 * float(scores[n]):.0f} %'
    place = _caption_place(draw.textlength(caption, font), corners[n].tolist(), size, taken)
    colour = class_colour(int(labels[n]))
    draw.rectangle(place, fill=colour)
    dark = np.dot(colour, LUMINANCE) < 110
    draw.text((place[0] + 2, place[1]), caption, 'white' if dark else 'black', font)
    taken.append(place)
  return np.asarray(image)


def _paint(drawn: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
  """Tints the pixels of a mask, and gives those at its border the colour itself."""
  inner = np.pad(mask, 1)
  inner = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
  tinted = (1 - TINT) * drawn[mask] + TINT * np.array(colour)
  drawn[mask] = np.rint(tinted).astype(np.uint8)
  drawn[mask & ~inner] = colour


def _caption_place(
  length: float, box: Sequence[int], size: tuple[int, int], taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int]:
  """Where a caption stands, x1 y1 x2 y2 inclusive: the first free place above, in, or below its box."""
  width, height = int(length) + 4, LETTERS + 3
  x1, y1, x2, y2 = box
  places = []
  for x, y in ((x1, y1 - height), (x1, y1), (x2 - width, y1 - height), (x1, y2), (x1, y2 - height)):
    x = max(min(x, size[0] - width), 0)
    y = max(min(y, size[1] - height), 0)
    places.append((x, y, x + width - 1, y + height - 1))
  return next((place for place in places if not any(_touch(place, other) for other in taken)), places[0])


def _touch(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
  return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
