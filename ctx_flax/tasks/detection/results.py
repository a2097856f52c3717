"""Detections in COCO's format of results: records of a box, a score, a category and a mask."""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctx_flax import files
from ctx_flax.data import coco_masks
from ctx_flax.tasks.detection.ground_truth import GroundTruth
from ctx_flax.tasks.detection.paste import encode_mask, paste_mask

# {'image_id', 'category_id', 'score', 'bbox': [x, y, width, height], 'segmentation': run-length code}, of
# which a detection without mask or without box lacks the last or the one before.
Result = dict[str, Any]
KINDS = {'box': 'bbox', 'mask': 'segmentation'}  # what is evaluated: the key of a record that holds it


def image_results(
  image_id: Any,
  hw: Sequence[int],
  detections: Mapping[str, np.ndarray],
  category_ids: Sequence[int],
) -> list[Result]:
  """The results of an image, in the order of its detections.

  Args:
    image_id: of the image.
    hw: its height and width.
    detections: 'boxes' float (n, 4), x1 y1 x2 y2 in pixels of the image, 'scores' float (n,), 'labels' int
      (n,), if not all are detections 'valid' bool (n,), and if there are masks 'masks' float (n, 28, 28),
      probabilities.
    category_ids: the category of each label.

  Raises:
    ValueError: a number that is not finite, or a label without category.
  """
  results: list[Result] = []
  for n in np.flatnonzero(detections.get('valid', np.ones(len(detections['scores']), bool))):
    box, score = np.asarray(detections['boxes'][n], np.float64), float(detections['scores'][n])
    label = int(detections['labels'][n])
    if not (np.isfinite(box).all() and math.isfinite(score)):
      raise ValueError(f'a detection in image {image_id} has the box {box.tolist()} and the score {score}')
    if not 0 <= label < len(category_ids):
      raise ValueError(
        f'a detection in image {image_id} has the label {label}, but there are {len(category_ids)} categories'
      )
    x1, y1, x2, y2 = box.tolist()
    result: Result = {
      'image_id': image_id,
      'category_id': int(category_ids[label]),
      'bbox': [x1, y1, x2 - x1, y2 - y1],
      'score': score,
    }
    if 'masks' in detections:
      result['segmentation'] = encode_mask(paste_mask(detections['masks'][n], box, hw))
    results.append(result)
  return results


def check_results(results: Sequence[Result], *kinds: str) -> None:
  """Raises ValueError for the first result without what is evaluated, of 'box' and 'mask'."""
  for number, result in enumerate(results):
    for kind in kinds:
      if KINDS[kind] not in result:
        raise ValueError(
          f'result {number} (from 0) has no {KINDS[kind]!r}, so its {kind} cannot be evaluated'
        )


def check_masks(ground_truth: GroundTruth, kind: str) -> None:
  """Raises ValueError if masks are to be evaluated, of objects of which the boxes alone were read."""
  if kind == 'mask' and not ground_truth.masks:
    raise ValueError('masks cannot be evaluated: of the ground truth, the boxes alone were read')


def write_results(path: str | os.PathLike[str], results: Sequence[Result], kind: str = '') -> None:
  """Writes a JSON file that COCO's tools and its server take, whole or not at all; a detection a line.

  Args:
    path: of the file.
    results: what `image_results` returned, of all images.
    kind: 'box' or 'mask' leaves the other one out, '' neither. Where a file has boxes, COCO's tools take
      detections for small, medium or large by these, although they evaluate masks: write masks alone.
  """
  left_out = {key for name, key in KINDS.items() if kind and name != kind}
  lines = (json.dumps({key: r[key] for key in r if key not in left_out}, allow_nan=False) for r in results)
  with files.replacing(path) as part, part.open('w', encoding='utf-8') as file:
    file.write('[\n' if results else '[')
    for number, line in enumerate(lines):
      file.write(f',\n{line}' if number else line)
    file.write('\n]\n' if results else ']\n')


def read_results(path: str | os.PathLike[str], ground_truth: GroundTruth) -> list[Result]:
  """Reads a file of results, of this or of other programs.

  Args:
    path: of a JSON file: a list of objects with image_id, category_id, score, and bbox or segmentation.
    ground_truth: has the images and categories that may be named.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is no such file; names it, and the first result that is wrong.
  """
  path = pathlib.Path(path)
  try:
    results = json.loads(path.read_bytes())
  except ValueError as error:  # no UTF-8, or no JSON
    raise ValueError(f'{files.printable(path)} is not a JSON file, or not all of one: {error}') from None
  if not isinstance(results, list):
    raise ValueError(f'{files.printable(path)} must hold a list of results, but holds {_type(results)}')
  categories = set(ground_truth.category_ids)
  kinds = [key for key in KINDS.values() if results and isinstance(results[0], dict) and key in results[0]]
  for number, result in enumerate(results):
    wrong = _wrong(result, kinds or list(KINDS.values())[:1], ground_truth, categories)
    if wrong:
      raise ValueError(f'{files.printable(path)}: result {number} (from 0) {wrong}')
  return results


def _wrong(result: Any, kinds: Sequence[str], ground_truth: GroundTruth, categories: set[int]) -> str:
  """What is wrong with a result: the end of a sentence, '' if nothing is."""
  if not isinstance(result, dict):
    return f'is {_type(result)}, not an object'
  for key in ('image_id', 'category_id', 'score', *kinds):
    if key not in result:
      return f'lacks {key!r}'
  image = ground_truth.images.get(result['image_id']) if _is_id(result['image_id']) else None
  if image is None:
    return (
      f'is of image {result["image_id"]!r}, which is not among the {len(ground_truth.images)} to evaluate'
    )
  if not _is_id(result['category_id']) or result['category_id'] not in categories:
    return f'is of category {result["category_id"]!r}, which is none of the {len(categories)} annotated ones'
  if not _finite(result['score']):
    return f'has the score {result["score"]!r}, which is no number'
  box, code = result.get('bbox', [0, 0, 0, 0]), result.get('segmentation')
  if not (isinstance(box, list) and len(box) == 4 and all(map(_finite, box))):
    return f'has the bbox {box!r}, which is not [x, y, width, height]'
  hw = [image['height'], image['width']]
  if 'segmentation' in result:
    if not (isinstance(code, dict) and isinstance(code.get('counts'), str)) or coco_masks.problem(code):
      return "has a segmentation that is no run-length code {'size': [h, w], 'counts': text}"
    if code['size'] != hw:
      return f'has a mask of size {code["size"]}, but its image has {hw}'
  return ''


def _is_id(value: Any) -> bool:
  return isinstance(value, int | str)


def _finite(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def _type(value: Any) -> str:
  """What JSON calls a value."""
  names = {dict: 'an object', list: 'an array', str: 'a string', bool: 'a boolean', type(None): 'null'}
  return names.get(type(value), 'a number')
