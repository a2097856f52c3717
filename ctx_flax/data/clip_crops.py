"""Which part of a video's frames is seen: the crops of TSM, in whole pixels.

As https://github.com/mit-han-lab/temporal-shift-module has them, but for portrait videos, see
`longer_side_places`. Widths stand before heights, x before y, as in Pillow.
"""

import numpy as np

SNAP = 2  # a side that differs from the network's by so many pixels is made equal, which spares a resize
DISTORTION = 1  # the two sides of a crop are at most so many scales apart


def multi_scale_sizes(width: int, height: int, size: int, scales: tuple[float, ...]) -> list[tuple[int, int]]:
  """The (width, height) of the crops that training draws from.

  Args:
    width, height: of the frames, in pixels.
    size: side that the network sees.
    scales: of a side, relative to the short side of the frames, above 0 and at most 1.
  """
  short = min(width, height)
  sides = [max(1, int(short * scale)) for scale in scales]
  sides = [size if abs(side - size) <= SNAP and size <= short else side for side in sides]
  return [(w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= DISTORTION]


def fixed_places(width: int, height: int, w: int, h: int) -> list[tuple[int, int]]:
  """The (x, y) of the top left pixel of a w x h crop in its 13 places.

  In this order: the corners top left, top right, bottom left, bottom right; the centre; the middles of the
  left, right, bottom and top edge; half-way from the centre to each corner.
  """
  dx, dy = (width - w) // 4, (height - h) // 4
  corners, edges = [(0, 0), (4, 0), (0, 4), (4, 4)], [(0, 2), (4, 2), (2, 4), (2, 0)]
  quarters = [(1, 1), (3, 1), (1, 3), (3, 3)]
  return [(x * dx, y * dy) for x, y in [*corners, (2, 2), *edges, *quarters]]


def multi_scale_box(
  width: int, height: int, rng: np.random.Generator, size: int, scales: tuple[float, ...]
) -> tuple[int, int, int, int]:
  """One of `multi_scale_sizes` in one of its `fixed_places`, each uniform: (left, top, right, bottom)."""
  sizes = multi_scale_sizes(width, height, size, scales)
  w, h = sizes[rng.integers(len(sizes))]
  places = fixed_places(width, height, w, h)
  x, y = places[rng.integers(len(places))]
  return x, y, x + w, y + h


def centre_place(width: int, height: int, size: int) -> tuple[int, int]:
  """The (x, y) of the centred square; of two middles the even one, as torchvision rounds."""
  return round((width - size) / 2), round((height - size) / 2)


def corner_places(width: int, height: int, size: int) -> list[tuple[int, int]]:
  """The (x, y) of the squares of a ten-crop test without their mirrors: the four corners and the centre."""
  return fixed_places(width, height, size, size)[:5]


def longer_side_places(width: int, height: int, size: int) -> list[tuple[int, int]]:
  """The (x, y) of the squares of a full-resolution test: both ends and the middle of the longer side.

  TSM always goes along the width, and so sees the centre of a portrait video three times.
  """
  dx, dy = (width - size) // 4, (height - size) // 4
  if width >= height:
    return [(0, 2 * dy), (4 * dx, 2 * dy), (2 * dx, 2 * dy)]
  return [(2 * dx, 0), (2 * dx, 4 * dy), (2 * dx, 2 * dy)]
