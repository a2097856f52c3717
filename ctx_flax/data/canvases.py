"""Canvases: the few sizes that batches of images of any size have, so that few programs are compiled.

Sizes are (h, w). All images of a batch lie in the upper left corner of the same canvas.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ctx_flax.files import printable

STRIDE = 32  # of the coarsest map of a backbone: sides are multiples of it


def both_orientations(sides: Iterable[Sequence[int]]) -> np.ndarray:
  """Canvases of these (short, long) sides, lying and standing: int (k, 2), each once, from small to large."""
  canvases = {size for short, long in sides for size in ((short, long), (long, short))}
  return np.array(sorted(canvases, key=lambda size: (size[0] * size[1], size)), np.int32)


def smallest_canvas(hw: np.ndarray, canvases: np.ndarray) -> np.ndarray:
  """The first canvas that each size (..., 2) fits into, the smallest: int (...), -1 if none does."""
  chosen = np.full(hw.shape[:-1], -1)
  for number in reversed(range(len(canvases))):
    chosen[(hw <= canvases[number]).all(axis=-1)] = number
  return chosen


def check_sides(sides: Iterable[Sequence[int]]) -> None:
  """Raises ValueError if data.canvases are not (short, long) sides of multiples of STRIDE."""
  sides = tuple(sides)
  if not sides or any(min(side) < STRIDE or any(n % STRIDE for n in side) for side in sides):
    raise ValueError(
      f'data.canvases must be (short, long) sides, multiples of {STRIDE}, but is {tuple(map(tuple, sides))}'
    )


def check_fit(hw: np.ndarray, canvases: np.ndarray, name: Callable[[int], str]) -> None:
  """Raises ValueError for the first of some sizes (n, 2) that fits into no canvas; name(i) is its image's."""
  too_large = np.flatnonzero(smallest_canvas(hw, canvases) < 0)
  if len(too_large):
    first = int(too_large[0])
    h, w = hw[first]
    known = ', '.join(f'{height} x {width}' for height, width in canvases[-2:])
    raise ValueError(
      f'{printable(name(first))} may get {h} x {w} pixels (height x width), but the largest of '
      f'data.canvases are {known}: add a larger one'
    )
