"""Detections close up, with the objects that they have to do with."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ctx_flax.analysis import detection_figures
from ctx_flax.analysis.detected import Detected
from ctx_flax.tasks.detection.pictures import boxes_of, masks_of, pixels_of

# Labels that colours follow from, in close-ups: all detections have one, all objects another.
DETECTION, ANNOTATION = 0, 1


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
  boxes, masks = boxes_of(records), masks_of(records, (h, w))
  return detection_figures.close_up(pixels, boxes, np.array(labels), names, masks=masks)


def _class_name(detected: Detected, record: Mapping[str, Any]) -> str:
  ground_truth = detected.ground_truth
  return ground_truth.class_names[ground_truth.category_ids.index(record['category_id'])]
