"""What a detector gets wrong: curves of precision, confused classes, false detections, missed objects.

Axes: d detections, o objects, n categories. The arrays of detections and objects are those of
ctx_flax.tasks.detection.matching.
"""

from typing import Any, NamedTuple

import numpy as np

from ctx_flax.tasks.detection.average_precision import SIZES
from ctx_flax.tasks.detection.matching import Matches, Overlaps

RECALLS = np.linspace(0, 1, 101)  # at which COCO reads precision
BORDERS = 32**2, 96**2  # pixels, between small, medium and large objects
NEAR = 0.1  # overlap from which a false detection has to do with an object
# Of a false detection, the first that holds: there is a better detection of the object; the object is of
# another category; its category is there, but too far off; only another category is that near; nothing is.
ERRORS = 'duplicate', 'class', 'location', 'class and location', 'background'


class Curve(NamedTuple):
  """Precision and recall of a category's detections, as ever lower scores are let in.

  Attributes:
    score: float (k,), falling.
    precision, recall: float (k,), with the detections down to this one.
    objects: how many there are to be detected.
  """

  score: np.ndarray
  precision: np.ndarray
  recall: np.ndarray
  objects: int


def curve(overlaps: Overlaps, matches: Matches, category: int) -> Curve:
  """The Curve of a category, by number; recall is NaN where there are no objects."""
  rows = np.flatnonzero((overlaps.category == category) & ~matches.ignored)
  rows = rows[np.argsort(-overlaps.score[rows], kind='stable')]
  right = np.cumsum(matches.object[rows] >= 0)
  objects = int(((overlaps.object_category == category) & ~overlaps.crowd).sum())
  recall = right / objects if objects else np.full(len(rows), np.nan)
  return Curve(overlaps.score[rows], right / np.arange(1, len(rows) + 1), recall, objects)


def interpolated(curve: Curve) -> np.ndarray:
  """The highest precision at RECALLS or beyond, float (101,), whose mean is COCO's average precision.

  0 at a recall that is not reached; NaN without objects.
  """
  if not curve.objects:
    return np.full(len(RECALLS), np.nan)
  highest = np.maximum.accumulate(curve.precision[::-1])[::-1]
  return np.append(highest, 0.0)[np.searchsorted(curve.recall, RECALLS)]


def confusions(overlaps: Overlaps, matches: Matches, categories: int, score: float = 0.5) -> np.ndarray:
  """What objects are taken for, int (n + 1, n + 1): rows are annotated, columns detected categories.

  The last column counts missed objects, the last row detections of no object.

  Args:
    overlaps: of all detections.
    matches: of these, with `by_category` False.
    categories: their number.
    score: detections below do not count.
  """
  table = np.zeros((categories + 1, categories + 1), np.int64)
  counted = (overlaps.score >= score) & ~matches.ignored
  right = counted & (matches.object >= 0)
  np.add.at(table, (overlaps.object_category[matches.object[right]], overlaps.category[right]), 1)
  np.add.at(table[-1], overlaps.category[counted & ~right], 1)
  np.add.at(table[:, -1], overlaps.object_category[missed(overlaps, matches, score)], 1)
  return table


def confused_pairs(table: np.ndarray, count: int) -> list[dict[str, Any]]:
  """The most frequent confusions of two categories in what `confusions` returned.

  Returns:
    [{'true', 'predicted', 'objects', 'share'}, ...], categories by number; 'share' is that of the objects of
    the true one. Equal ones in the order of categories.
  """
  objects = table.sum(1)
  off_diagonal = np.where(np.eye(len(table), dtype=bool), 0, table)[:-1, :-1]
  true, predicted = np.nonzero(off_diagonal)
  order = np.argsort(-off_diagonal[true, predicted], kind='stable')[:count]
  return [
    {
      'true': int(true[i]),
      'predicted': int(predicted[i]),
      'objects': int(off_diagonal[true[i], predicted[i]]),
      'share': float(off_diagonal[true[i], predicted[i]] / objects[true[i]]),
    }
    for i in order
  ]


def false_positives(overlaps: Overlaps, matches: Matches, count: int) -> np.ndarray:
  """The `count` detections of no object with the highest scores, highest first: int (k,), of d.

  `matches` are those by category.
  """
  wrong = np.flatnonzero((matches.object < 0) & ~matches.ignored)
  return wrong[np.argsort(-overlaps.score[wrong], kind='stable')][:count]


def nearest_object(overlaps: Overlaps, detection: int, threshold: float = 0.5) -> tuple[str, int, float]:
  """Why a detection is false, after TIDE (Bolya et al., ECCV 2020).

  Args:
    overlaps: of all detections.
    detection: one that `false_positives` returned.
    threshold: that of the matches.

  Returns:
    (one of ERRORS, the object that it has to do with or -1, how far it overlaps with it).
  """
  mine, its = overlaps.rows(int(overlaps.image[detection]))
  ious = overlaps.ious.get(int(overlaps.image[detection]), np.zeros((mine.stop - mine.start, 0)))
  ious = np.where(overlaps.crowd[its], 0.0, ious[detection - mine.start])
  same = overlaps.object_category[its] == overlaps.category[detection]
  for error, category, least in zip(
    ERRORS, (same, ~same, same, ~same), (threshold, threshold, NEAR, NEAR), strict=False
  ):
    near = np.where(category & (ious >= least), ious, -1.0)
    if (near >= 0).any():
      return error, its.start + int(near.argmax()), float(near.max())
  return ERRORS[-1], -1, float(ious.max(initial=0.0))


def missed(overlaps: Overlaps, matches: Matches, score: float = 0.0) -> np.ndarray:
  """Objects without a detection of at least that score, crowds aside: int (k,), of o, largest first."""
  scores = np.append(overlaps.score, -np.inf)[matches.detection]  # -1, none, is the last
  rows = np.flatnonzero((scores < score) & ~overlaps.crowd)
  return rows[np.argsort(-overlaps.area[rows], kind='stable')]


def missed_by_size(overlaps: Overlaps, matches: Matches, score: float = 0.0) -> dict[str, dict[str, int]]:
  """{'small': {'objects', 'missed'}, 'medium': ..., 'large': ...}, see `missed`.

  An object is small below 32 * 32 pixels and large from 96 * 96 on, each is of one size alone. (COCO counts
  an object of exactly these areas in both.)
  """
  sizes = np.searchsorted(BORDERS, overlaps.area, side='right')
  count = lambda rows: np.bincount(sizes[rows], minlength=len(SIZES)).tolist()
  totals, losses = count(np.flatnonzero(~overlaps.crowd)), count(missed(overlaps, matches, score))
  return {
    size: {'objects': total, 'missed': loss} for size, total, loss in zip(SIZES, totals, losses, strict=True)
  }
