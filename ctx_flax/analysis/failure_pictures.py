"""Detections beside what is annotated, as pictures of parts of test images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctx_flax.analysis import detection_figures
from ctx_flax.analysis.detected import Detected
from ctx_flax.data import coco_masks
from ctx_flax.data.decode import BadImage
from ctx_flax.data.detection_transforms import read_image
from ctx_flax.data.object_drawing import draw_objects

# Labels that colours follow from, in close-ups: all detections have one, all objects another.
DETECTION, ANNOTATION = 0, 1
SIDES = 256, 512  # pixels of the longer side of a whole image: enlarged below, reduced above


def close_up(source: Any, detected: Detected, result: Any, annotation: Any) -> np.ndarray:
  """The surroundings of a detection and of an annotated object, uint8 (h, w, 3).

  Args:
    source: the test images.
    detected: what they were tested with.
    result, annotation: records of one image; one of them may be None.
  """
  names, labels, records = ['', ''], [], []
  if result is not None:
    names[DETECTION] = f'{_class_name(detected, result)} {100 * result["score"]:.0f} %'
    labels.append(DETECTION)
    records.append(result)
  if annotation is not None:
    names[ANNOTATION] = f'annotated: {_class_name(detected, annotation)}'
    labels.append(ANNOTATION)
    records.append(annotation)
  pixels = pixels_of(source, detected.index[records[0]['image_id']])
  h, w, _ = pixels.shape
  boxes, masks = _boxes(records), _masks(records, (h, w))
  return detection_figures.close_up(pixels, boxes, np.array(labels), names, masks=masks)


def annotated_and_detected(
  source: Any, detected: Detected, index: int, score: float
) -> tuple[np.ndarray, np.ndarray]:
  """A test image twice, with its annotated objects and with its detections, uint8 (h, w, 3).

  Args:
    source: the test images.
    detected: what they were tested with.
    index: which of them.
    score: detections below are left out.
  """
  pixels = pixels_of(source, index)
  h, w, _ = pixels.shape
  image = int(source.image_ids[index])
  ground_truth = detected.ground_truth
  annotations = [record for record in ground_truth.annotations if record['image_id'] == image]
  results = [r for r in detected.results if r['image_id'] == image and r['score'] >= score]
  scale = np.clip(1.0, *(side / max(h, w) for side in SIDES))

  def draw(records: Sequence[Mapping[str, Any]], scores: np.ndarray | None) -> np.ndarray:
    labels = np.array([ground_truth.category_ids.index(r['category_id']) for r in records], int)
    masks = _masks(records, (h, w))
    names = ground_truth.class_names
    return draw_objects(
      pixels, _boxes(records), labels, names, scores=scores, masks=masks, scale=float(scale)
    )

  return draw(annotations, None), draw(results, np.array([r['score'] for r in results]))


def pixels_of(source: Any, index: int) -> np.ndarray:
  """uint8 (h, w, 3) of a test image; black if it cannot be read, as objects that are missed there count."""
  try:
    return read_image(source[index])
  except (BadImage, OSError):
    return np.zeros((*source.hw[index].tolist(), 3), np.uint8)


def _class_name(detected: Detected, record: Mapping[str, Any]) -> str:
  ground_truth = detected.ground_truth
  return ground_truth.class_names[ground_truth.category_ids.index(record['category_id'])]


def _boxes(records: Sequence[Mapping[str, Any]]) -> np.ndarray:
  """float (n, 4), x1 y1 x2 y2."""
  boxes = np.array([record['bbox'] for record in records], np.float64).reshape(-1, 4)
  return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def _masks(records: Sequence[Mapping[str, Any]], hw: tuple[int, int]) -> np.ndarray:
  """bool (n, h, w)."""
  masks = np.zeros((len(records), *hw), bool)
  for mask, record in zip(masks, records, strict=True):
    code = record['segmentation']
    if isinstance(code['counts'], bytes):  # as pycocotools makes them of polygons
      code = code | {'counts': code['counts'].decode('ascii')}
    mask[...] = coco_masks.decode(code, hw)
  return masks
