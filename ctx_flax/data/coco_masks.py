"""Masks as COCO files write them: polygons, and run lengths in two notations.

Run lengths count pixels of 0 and 1 by turns, down the columns, from the left. They are decoded here: if they
do not cover an image, pycocotools reads the rest from memory that was never written. Polygons become pixels
by its rule.
"""

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

FAR = 100_000  # pixels: pycocotools walks along every edge of a polygon
DIGIT = 0x20  # of a text of run lengths: another digit of the same number follows
SIGN = 0x10  # of its last digit: it is negative


def require_pycocotools() -> None:
  """Raises ImportError, in one line, if pycocotools is not installed."""
  if importlib.util.find_spec('pycocotools') is None:
    raise ImportError(
      'COCO masks need pycocotools, which is not installed: pip install "ctx-flax[detection]"'
    )


def problem(segmentation: Any) -> str:
  """What is wrong with a 'segmentation', as a key of coco_json.PROBLEMS; '' if nothing is."""
  if isinstance(segmentation, dict):
    try:
      h, w = rle_hw(segmentation)
      return '' if _covers(run_lengths(segmentation['counts']), h * w) else 'counts'
    except (KeyError, TypeError, ValueError, OverflowError):
      return 'counts'
  if not isinstance(segmentation, list) or not segmentation:
    return 'mask'
  try:
    for polygon in segmentation:
      # A sum is not finite if one of its terms is not; comparing with a NaN tells nothing.
      if len(polygon) % 2 or not math.isfinite(sum(polygon)):
        return 'polygon'
      if polygon and not -FAR < min(polygon) <= max(polygon) < FAR:
        return 'polygon'
  except (TypeError, OverflowError):
    return 'polygon'
  return '' if polygons(segmentation) else 'points'


def polygons(segmentation: list[list[float]]) -> list[list[float]]:
  """Those of three points or more; pycocotools would take four numbers for a box."""
  return [polygon for polygon in segmentation if len(polygon) >= 6]


def rle_hw(segmentation: dict[str, Any]) -> tuple[int, int]:
  """The (h, w) that run lengths are of; ValueError if they do not say."""
  h, w = segmentation['size']
  if type(h) is not int or type(w) is not int or not (0 < h < FAR and 0 < w < FAR):
    raise ValueError(f'size is {h!r}, {w!r}')
  return h, w


def decode(segmentation: Any, hw: tuple[int, int]) -> np.ndarray:
  """The mask of a segmentation without a `problem`, of an image of (h, w) pixels: uint8 (h, w), 0 or 1."""
  h, w = hw
  if isinstance(segmentation, dict):
    counts = run_lengths(segmentation['counts'])
  else:
    from pycocotools import mask

    parts = mask.frPyObjects(polygons(segmentation), h, w)
    counts = run_lengths(mask.merge(parts)['counts'].decode('ascii'))
  values = np.arange(len(counts), dtype=np.uint8) & 1
  return np.ascontiguousarray(np.repeat(values, counts).reshape(w, h).T)


def encode(mask: np.ndarray) -> dict[str, Any]:
  """Run lengths of a mask (h, w), not compressed: {'size': [h, w], 'counts': [int, ...]}."""
  flat = np.asarray(mask, bool).T.ravel()
  edges = np.flatnonzero(np.diff(flat, prepend=False, append=~flat[-1:]))
  return {'size': [*map(int, mask.shape)], 'counts': np.diff(edges, prepend=0).tolist()}


def run_lengths(counts: Sequence[int] | str) -> np.ndarray:
  """int64 (n,) of a list of numbers, or of the text that pycocotools makes of it.

  The text has digits of five bits, the lowest first, from '0' on; from the fourth number on each is a
  difference from the last but one.
  """
  if not isinstance(counts, str):
    return np.asarray(counts, np.int64) if all(type(n) is int for n in counts) else np.array([-1])
  digits = np.frombuffer(counts.encode('latin-1'), np.uint8).astype(np.int64) - 48
  ends = np.flatnonzero((digits & DIGIT) == 0)
  if not digits.size or digits.min() < 0 or digits.max() > 63 or ends[-1:].tolist() != [digits.size - 1]:
    return np.array([-1])
  starts = np.concatenate([[0], ends[:-1] + 1])
  places = np.arange(digits.size) - np.repeat(starts, ends - starts + 1)
  if places.max() > 7:  # no image has as many pixels
    return np.array([-1])
  numbers = np.add.reduceat((digits & 31) << (5 * places), starts)
  numbers -= ((digits[ends] & SIGN) != 0) * (1 << (5 * (places[ends] + 1)))
  # Number i is the sum of those at i, i - 2, ... but for the first, which nothing refers to.
  for parity in (1, 2):
    numbers[parity::2] = np.cumsum(numbers[parity::2])
  return numbers


def _covers(counts: np.ndarray, pixels: int) -> bool:
  return bool(counts.size and counts.min() >= 0 and counts.sum() == pixels)
