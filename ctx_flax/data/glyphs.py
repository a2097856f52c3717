"""Up to 1,000 characters in fonts that matplotlib ships: many classes, drawn here, nothing to download.

An image is a character at a random place, size, slant and thickness, light on dark or dark on light, with
noise. It follows from the seed, the split and its index. The test images are in other fonts than the training
images. The classes are the first data.classes of glyph_classes.txt, which `python -m ctx_flax.data.glyphs`
has chosen.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from ctx_flax.data.drawn import Drawn, images_of, options_of
from ctx_flax.data.fonts import font_file

LIST = pathlib.Path(__file__).with_name('glyph_classes.txt')
# Sans to train on, serif to test on.
FONTS = {
  'train': ('DejaVuSans', 'DejaVuSans-Bold', 'DejaVuSans-Oblique', 'DejaVuSansMono'),
  'test': ('DejaVuSerif', 'DejaVuSerif-Bold', 'DejaVuSerif-Italic'),
}
SIDE = 64  # of the drawn character, pixels
ROTATE = 12.0  # degrees either way
SHEAR = 0.15  # either way
SIZE = (0.6, 0.9)  # of the character in the image
SHIFT = 0.08  # of the image's side, either way
NOISE = 20.0  # largest standard deviation, in grey values
CONTRAST = 90.0  # least difference of the two grey values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Glyphs(Drawn):
  """Image i shows character i % num_classes."""

  def __getitem__(self, index: int) -> dict[str, Any]:
    import cv2

    label = index % self.num_classes
    rng = self.generator(index)
    fonts = FONTS[self.split]
    ink = drawn(self.class_names[label], fonts[rng.integers(len(fonts))])
    change, kernel = rng.integers(-1, 3), np.ones((3, 3), np.uint8)
    if change:
      ink = cv2.dilate(ink, kernel, iterations=int(change)) if change > 0 else cv2.erode(ink, kernel)
    size = self.image_size
    ink = cv2.warpAffine(ink, _forward(rng, size), (size, size), flags=cv2.INTER_AREA)
    dark = rng.uniform(0, 255 - CONTRAST)
    light = rng.uniform(dark + CONTRAST, 255)
    back, front = (dark, light) if rng.random() < 0.5 else (light, dark)
    image = back + ink * np.float32((front - back) / 255)
    image += rng.standard_normal((size, size), np.float32) * np.float32(rng.uniform(0, NOISE))
    return {'image': np.clip(image, 0, 255).astype(np.uint8)[..., None], 'label': label}


def glyphs(data: Any, split: str) -> Glyphs:
  """data.images_per_class images of each of data.classes characters to train, a fifth as many to test."""
  names = class_list()
  if not 2 <= data.classes <= len(names):
    raise ValueError(f'data.classes is {data.classes}: glyphs has 2 to {len(names)}')
  names = names[: data.classes]
  return Glyphs(class_names=names, length=images_of(data, split), **options_of(data, split))


@functools.cache
def class_list() -> tuple[str, ...]:
  """The stored characters, in order."""
  return tuple(LIST.read_text(encoding='utf-8').split())


@functools.cache
def drawn(character: str, font: str) -> np.ndarray:
  """A character as large as SIDE allows, in the middle of uint8 (SIDE, SIDE); all 0 without an outline."""
  from PIL import Image, ImageDraw

  image = Image.new('L', (2 * SIDE, 2 * SIDE))
  ImageDraw.Draw(image).text((SIDE, SIDE), character, 255, _font(font), anchor='mm')
  box = image.getbbox()
  if box is None:
    return np.zeros((SIDE, SIDE), np.uint8)
  image = image.crop(box)
  scale = (SIDE - 8) / max(image.size)
  image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
  result = Image.new('L', (SIDE, SIDE))
  result.paste(image, ((SIDE - image.size[0]) // 2, (SIDE - image.size[1]) // 2))
  return np.asarray(result)


@functools.cache
def _font(name):
  from PIL import ImageFont

  return ImageFont.truetype(font_file(name), SIDE)


def _forward(rng, size):
  """The 2x3 matrix from a drawn character to a place in an image."""
  angle, shear = np.radians(rng.uniform(-ROTATE, ROTATE)), rng.uniform(-SHEAR, SHEAR)
  scale = rng.uniform(*SIZE) * size / SIDE
  cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
  matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]])
  centre = size / 2 + rng.uniform(-SHIFT, SHIFT, 2) * size
  return np.column_stack([matrix, centre - matrix @ [SIDE / 2, SIDE / 2]])


# What follows chose the list.
RANGES = (  # of code points: digits and Latin, Greek, Cyrillic, then symbols, then the other scripts
  *((0x30, 0x3A), (0x41, 0x5B), (0x61, 0x7B), (0x391, 0x3CA), (0x410, 0x450), (0x21, 0x30), (0x3A, 0x41)),
  *((0x2190, 0x2200), (0x2200, 0x2300), (0x25A0, 0x2600), (0x2600, 0x2700), (0x2701, 0x27C0), (0x531, 0x588)),
  *((0x10A0, 0x1100), (0x5D0, 0x5EB), (0x400, 0x530), (0xA1, 0x250), (0x250, 0x2B0), (0x2100, 0x2190)),
  *(
    (0x2070, 0x20B6),
    (0x27C0, 0x27F0),
    (0x27F0, 0x2800),
    (0x2900, 0x2C00),
    (0x1E00, 0x1F00),
    (0x1F00, 0x2000),
  ),
)
LARGEST = 1000
NEAR = 0.035  # mean difference of two drawings of SIDE x SIDE in 0..1 below which they count as the same


def choose_classes() -> list[str]:
  """The characters that all fonts have, of which no two look alike in any training font."""
  from fontTools.ttLib import TTFont

  names = [name for fonts in FONTS.values() for name in fonts]
  covered = set.intersection(*(set(TTFont(font_file(name)).getBestCmap()) for name in names))
  chosen: list[str] = []
  kept = {name: np.zeros((0, SIDE * SIDE), np.float32) for name in names}
  for character in (chr(code) for start, end in RANGES for code in range(start, end) if code in covered):
    if character in chosen or character.isspace():
      continue
    drawings = {name: drawn(character, name).reshape(1, -1).astype(np.float32) / 255 for name in names}
    if any(drawing.mean() < 0.02 for drawing in drawings.values()):
      continue
    distances = [np.abs(kept[name] - drawings[name]).mean(1).min(initial=1) for name in names]
    if min(distances) < NEAR:
      continue
    chosen.append(character)
    kept = {name: np.concatenate([kept[name], drawings[name]]) for name in names}
    if len(chosen) == LARGEST:
      break
  return chosen


if __name__ == '__main__':
  found = choose_classes()
  LIST.write_text('\n'.join(found) + '\n', encoding='utf-8')
  print(f'{len(found)} classes in {LIST}')
