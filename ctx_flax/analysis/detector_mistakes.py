"""What a detector's test says about its failures: false detections, missed objects, confusions, curves.

Axes: d detections, o objects, as in ctx_flax.tasks.detection.matching.
"""

import collections
import dataclasses
from typing import Any

import numpy as np

from ctx_flax.analysis.detected import Detected
from ctx_flax.tasks.detection import errors
from ctx_flax.tasks.detection.average_precision import precision_recall
from ctx_flax.tasks.detection.matching import Matches, Overlaps, match, measure_overlaps


@dataclasses.dataclass(frozen=True)
class Mistakes:
  """The failures of a test.

  Attributes:
    detected: the test.
    overlaps: of its detections with objects.
    matches: by category.
    false: int (k,), of d: all detections of no object, by falling score.
    causes: of each of these what `errors.nearest_object` returns.
    missed: int (m,), of o: objects without a detection of a score that counts, largest first.
    confusions: what `errors.confusions` returns.
    precision: float (n, 101), what `errors.interpolated` returns of every class.
  """

  detected: Detected
  overlaps: Overlaps
  matches: Matches
  false: np.ndarray
  causes: list[tuple[str, int, float]]
  missed: np.ndarray
  confusions: np.ndarray
  precision: np.ndarray

  def result(self, detection: int) -> Any:
    """The record of a detection."""
    return self.detected.results[self.overlaps.result[detection]]

  def annotation(self, object_: int) -> Any:
    """The record of an object."""
    return self.detected.ground_truth.annotations[self.overlaps.annotation[object_]]

  def best(self, object_: int) -> int:
    """The detection of an object, whatever its score; -1 for none."""
    return int(self.matches.detection[object_])


def mistakes(detected: Detected, options: Any) -> Mistakes:
  """The Mistakes of a test; `options` are config.failures."""
  ground_truth = detected.ground_truth
  classes = len(ground_truth.class_names)
  overlaps = measure_overlaps(ground_truth, detected.results, options.kind)
  matches = match(overlaps, options.overlap)
  of_any_class = match(overlaps, options.overlap, by_category=False)
  false = errors.false_positives(overlaps, matches, len(overlaps.score))
  return Mistakes(
    detected,
    overlaps,
    matches,
    false,
    [errors.nearest_object(overlaps, int(d), options.overlap) for d in false],
    errors.missed(overlaps, matches, options.score),
    errors.confusions(overlaps, of_any_class, classes, options.score),
    np.stack([errors.interpolated(errors.curve(overlaps, matches, n)) for n in range(classes)]),
  )


def numbers(found: Mistakes, config: Any) -> dict[str, Any]:
  """All numbers about a test, for a file; `config` is that of the run."""
  options, names = config.failures, found.detected.ground_truth.class_names
  counted = found.overlaps.score >= options.score
  false = found.false[counted[found.false]]
  causes = collections.Counter(cause for cause, _, _ in found.causes[: len(false)])
  missed = errors.missed_by_size(found.overlaps, found.matches, options.score)
  total = lambda what: sum(size[what] for size in missed.values())
  pairs = errors.confused_pairs(found.confusions, options.pairs)
  return {
    'metrics': found.detected.metrics,
    'images': len(found.detected.index),
    'unreadable_images': found.detected.unreadable,
    'score': options.score,
    'overlap': options.overlap,
    'kind': options.kind,
    'false_detections': {
      'detections': int(counted.sum()),
      'false': len(false),
      'by_error': {error: causes[error] for error in errors.ERRORS},
    },
    'missed': {'objects': total('objects'), 'missed': total('missed'), 'by_size': missed},
    'confusions': [
      {**pair, 'true': names[pair['true']], 'predicted': names[pair['predicted']]} for pair in pairs
    ],
    'confusion_table': found.confusions,
    'classes': by_class(found, config),
    'recall': errors.RECALLS,
  }


def by_class(found: Mistakes, config: Any) -> list[dict[str, Any]]:
  """A dict of numbers for each class.

  Of 'objects' and 'missed' ones crowds are left out; 'ap' is COCO's, the mean of all IoUs, and 'precision' at
  all recalls with its mean 'ap_at_overlap' at the one of failures.overlap.
  """
  detected, overlaps = found.detected, found.overlaps
  average = precision_recall(
    detected.ground_truth, detected.results, config.failures.kind, config.eval.area
  ).per_category()
  count = lambda categories: np.bincount(categories, minlength=len(average)).tolist()
  columns = {
    'class': detected.ground_truth.class_names,
    'objects': count(overlaps.object_category[~overlaps.crowd]),
    'missed': count(overlaps.object_category[found.missed]),
    'false': count(overlaps.category[found.false[overlaps.score[found.false] >= config.failures.score]]),
    'ap': average.tolist(),
    'ap_at_overlap': found.precision.mean(1).tolist(),
    'precision': found.precision.tolist(),
  }
  return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def false_table(found: Mistakes, source: Any, count: int) -> dict[str, list]:
  """{column: list} of the `count` most confident false detections.

  'error' is one of errors.ERRORS, 'object' the class of the object that it has to do with, or '-', and
  'overlap' how far it overlaps with that.
  """
  names, rows = found.detected.ground_truth.class_names, found.false[:count].tolist()
  causes = found.causes[:count]
  of_object = lambda o: names[found.overlaps.object_category[o]] if o >= 0 else '-'
  return _places(found, source, [found.result(d) for d in rows]) | {
    'detected': [names[found.overlaps.category[d]] for d in rows],
    'score': found.overlaps.score[rows].tolist(),
    'error': [error for error, _, _ in causes],
    'object': [of_object(o) for _, o, _ in causes],
    'overlap': [overlap for *_, overlap in causes],
  }


def missed_table(found: Mistakes, source: Any, count: int) -> dict[str, list]:
  """{column: list} of the `count` largest missed objects.

  'area' is the annotated one, in pixels; 'best_score' that of the detection of the object that does not count
  as it is too low, 0 if there is none.
  """
  rows = found.missed[:count].tolist()
  names = found.detected.ground_truth.class_names
  scores = np.append(found.overlaps.score, 0.0)  # of -1, none
  return _places(found, source, [found.annotation(o) for o in rows]) | {
    'object': [names[found.overlaps.object_category[o]] for o in rows],
    'area': found.overlaps.area[rows].tolist(),
    'best_score': [float(scores[found.best(o)]) for o in rows],
  }


def _places(found: Mistakes, source: Any, records: list[Any]) -> dict[str, list]:
  """Where records are: numbers and names of their images, and boxes there."""
  index = [found.detected.index[record['image_id']] for record in records]
  sides = zip(*(record['bbox'] for record in records), strict=True)
  boxes = dict(zip(('x', 'y', 'width', 'height'), map(list, sides), strict=False))
  empty: dict[str, list] = {side: [] for side in ('x', 'y', 'width', 'height')}
  return {'index': index, 'image': [source.name(number) for number in index]} | empty | boxes
