"""Which detection is of which annotated object: greedily by score, as COCO's evaluation does.

Axes: d detections, o objects.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ctx_flax.tasks.detection.ground_truth import GroundTruth
from ctx_flax.tasks.detection.results import KINDS, Result, check_masks, check_results

MOST = 100  # detections of an image and category that count, the best


@dataclasses.dataclass(frozen=True)
class Overlaps:
  """How far detections overlap with objects of the same image.

  Detections are in the order of their images' ids, those of an image by falling score, equal ones as they
  were; objects in the order of images, those of an image as annotated. Images and categories are numbers:
  places in `GroundTruth.images` and `GroundTruth.category_ids`.

  Attributes:
    result: int (d,), the place in the list of results.
    image, category: int (d,).
    score: float (d,).
    annotation: int (o,), the place in `GroundTruth.annotations`.
    object_image, object_category: int (o,).
    area: float (o,), as annotated, in pixels.
    crowd: bool (o,), regions of many objects: what lies in them is neither right nor wrong.
    ious: {image: float (detections of the image, its objects)}, for images with both. With a crowd it is the
      share of the detection that lies in it.
  """

  result: np.ndarray
  image: np.ndarray
  category: np.ndarray
  score: np.ndarray
  annotation: np.ndarray
  object_image: np.ndarray
  object_category: np.ndarray
  area: np.ndarray
  crowd: np.ndarray
  ious: dict[int, np.ndarray]

  def rows(self, image: int) -> tuple[slice, slice]:
    """Where the detections and the objects of an image are."""
    return _rows(self.image, image), _rows(self.object_image, image)


class Matches(NamedTuple):
  """What belongs together.

  Attributes:
    object: int (d,), the object that a detection is of, -1 for none.
    ignored: bool (d,), detections that do not count: of a crowd, or beyond the best of an image.
    detection: int (o,), the detection of an object, -1 for one that was missed and for crowds.
  """

  object: np.ndarray
  ignored: np.ndarray
  detection: np.ndarray


def measure_overlaps(ground_truth: GroundTruth, results: Sequence[Result], kind: str) -> Overlaps:
  """Measures how far results overlap with the objects of their images.

  Args:
    ground_truth: the objects.
    results: of its images.
    kind: 'box' or 'mask'.
  """
  check_results(results, kind)
  check_masks(ground_truth, kind)
  image_numbers = {image: number for number, image in enumerate(ground_truth.images)}
  category_numbers = {category: number for number, category in enumerate(ground_truth.category_ids)}
  numbers = lambda records, key, names: np.array([names[record[key]] for record in records], np.int64)
  image = numbers(results, 'image_id', image_numbers)
  score = np.array([result['score'] for result in results], np.float64)
  order = np.lexsort((-score, image))
  detected = [results[n] for n in order]
  object_image = numbers(ground_truth.annotations, 'image_id', image_numbers)
  annotation = np.argsort(object_image, kind='stable')
  objects = [ground_truth.annotations[n] for n in annotation]
  measured = Overlaps(
    result=order,
    image=image[order],
    category=numbers(detected, 'category_id', category_numbers),
    score=score[order],
    annotation=annotation,
    object_image=object_image[annotation],
    object_category=numbers(objects, 'category_id', category_numbers),
    area=np.array([record['area'] for record in objects], np.float64),
    crowd=np.array([bool(record['iscrowd']) for record in objects], bool),
    ious={},
  )
  key, overlap = KINDS[kind], box_overlaps if kind == 'box' else _mask_overlaps
  for number in np.intersect1d(measured.image, measured.object_image).tolist():
    mine, its = measured.rows(number)
    shapes = [record[key] for record in detected[mine]], [record[key] for record in objects[its]]
    measured.ious[number] = overlap(*shapes, measured.crowd[its])
  return measured


def box_overlaps(detected: Sequence, annotated: Sequence, crowd: np.ndarray) -> np.ndarray:
  """Intersection over union of boxes x y w h, (d, 4) and (o, 4) -> float64 (d, o).

  With a crowd (bool (o,)) it is the intersection over the detected box. 0 where they only touch.
  """
  a, b = np.asarray(detected, np.float64)[:, None], np.asarray(annotated, np.float64)[None]
  sides = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
  shared = np.where((sides > 0).all(-1), sides.prod(-1), 0.0)
  union = np.where(crowd[None], a[..., 2:].prod(-1), a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - shared)
  return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def match(measured: Overlaps, threshold: float = 0.5, by_category: bool = True) -> Matches:
  """Gives each detection, by falling score, the free object that it overlaps most, at least by a threshold.

  A detection of no object that overlaps with a crowd is ignored, and so are those beyond the best MOST.

  Args:
    measured: the overlaps.
    threshold: the least intersection over union.
    by_category: a detection is of objects of its own category alone; False: of any, as in a table of
      confusions, where MOST are those of an image.
  """
  matched = np.full(len(measured.score), -1, np.int64)
  ignored = np.zeros(len(measured.score), bool)
  detection = np.full(len(measured.area), -1, np.int64)
  for image in np.unique(measured.image).tolist():
    mine, its = measured.rows(image)
    ious = measured.ious.get(image, np.zeros((mine.stop - mine.start, 0)))
    crowd = measured.crowd[its]
    category = measured.category[mine]
    if not by_category:
      category = np.zeros_like(category)
    hits = ious >= min(threshold, 1 - 1e-10)  # COCO's: an overlap of 1 may come out a little below
    if by_category:
      hits &= category[:, None] == measured.object_category[its][None]
    free = ~crowd
    counts: dict[int, int] = {}
    for row, group in enumerate(category.tolist()):
      counts[group] = counts.get(group, 0) + 1
      if counts[group] > MOST:
        ignored[mine.start + row] = True
        continue
      chosen = _best(ious[row], hits[row] & free)
      if chosen >= 0:
        free[chosen] = False
        matched[mine.start + row] = its.start + chosen
        detection[its.start + chosen] = mine.start + row
      elif (hits[row] & crowd).any():
        ignored[mine.start + row] = True
  return Matches(matched, ignored, detection)


def _best(values: np.ndarray, allowed: np.ndarray) -> int:
  """The place of the highest allowed value, the last of equal ones as in COCO's evaluation; -1 for none."""
  places = np.flatnonzero(allowed)
  if not places.size:
    return -1
  return int(places[::-1][np.argmax(values[places[::-1]])])


def _rows(images: np.ndarray, image: int) -> slice:
  return slice(*np.searchsorted(images, [image, image + 1]).tolist())


def _mask_overlaps(detected: Sequence, annotated: Sequence, crowd: np.ndarray) -> np.ndarray:
  from pycocotools import mask as coco_mask

  return coco_mask.iou(list(detected), list(annotated), crowd.astype(np.uint8).tolist())
