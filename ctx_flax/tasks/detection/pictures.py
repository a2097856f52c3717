"""Test images with their annotated objects beside what is detected in them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctx_flax.data import coco_masks
from ctx_flax.data.decode import BadImage
from ctx_flax.data.detection_grid import SIDE, save_grid
from ctx_flax.data.detection_transforms import read_image
from ctx_flax.data.object_drawing import draw_objects


def save_tested(
  source: Any, tested: Any, path: str | os.PathLike[str], most: int = 8, score: float = 0.5
) -> None:
  """Writes images of a test as a PNG, each with its annotated objects and, right of it, with its detections.

  Args:
    source: the test images.
    tested: has `ground_truth` and `results`, as a tally of the test does.
    path: of the file.
    most: of the images with objects; they are spread over the source.
    score: detections below are left out.
  """
  with_objects = np.flatnonzero(source.object_counts)
  places = np.linspace(0, len(with_objects) - 1, min(most, len(with_objects))).round().astype(int)
  chosen = with_objects[places].tolist()
  pairs = [annotated_and_detected(source, tested, index, score) for index in chosen]
  save_grid([picture for pair in pairs for picture in pair], path, columns=4)


def annotated_and_detected(
  source: Any, tested: Any, index: int, score: float
) -> tuple[np.ndarray, np.ndarray]:
  """A test image twice, with its annotated objects and with its detections, uint8 (h, w, 3).

  Args:
    source: the test images.
    tested: has `ground_truth` and `results`, as a tally of the test does.
    index: which of them.
    score: detections below are left out.
  """
  pixels = pixels_of(source, index)
  h, w, _ = pixels.shape
  image = int(source.image_ids[index])
  ground_truth = tested.ground_truth
  annotations = [record for record in ground_truth.annotations if record['image_id'] == image]
  results = [r for r in tested.results if r['image_id'] == image and r['score'] >= score]
  scale = np.clip(1.0, *(side / max(h, w) for side in SIDE))

  def draw(records: Sequence[Mapping[str, Any]], scores: np.ndarray | None) -> np.ndarray:
    labels = np.array([ground_truth.category_ids.index(r['category_id']) for r in records], int)
    masks = masks_of(records, (h, w))
    names = ground_truth.class_names
    return draw_objects(
      pixels, boxes_of(records), labels, names, scores=scores, masks=masks, scale=float(scale)
    )

  return draw(annotations, None), draw(results, np.array([r['score'] for r in results]))


def pixels_of(source: Any, index: int) -> np.ndarray:
  """uint8 (h, w, 3) of a test image; black if it cannot be read, as objects that are missed there count."""
  try:
    return read_image(source[index])
  except (BadImage, OSError):
    return np.zeros((*source.hw[index].tolist(), 3), np.uint8)


def boxes_of(records: Sequence[Mapping[str, Any]]) -> np.ndarray:
  """The boxes of annotations or results, float (n, 4), x1 y1 x2 y2."""
  boxes = np.array([record['bbox'] for record in records], np.float64).reshape(-1, 4)
  return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def masks_of(records: Sequence[Mapping[str, Any]], hw: tuple[int, int]) -> np.ndarray:
  """The masks of annotations or results, bool (n, h, w)."""
  masks = np.zeros((len(records), *hw), bool)
  for mask, record in zip(masks, records, strict=True):
    code = record['segmentation']
    if isinstance(code['counts'], bytes):  # as pycocotools makes them of polygons
      code = code | {'counts': code['counts'].decode('ascii')}
    mask[...] = coco_masks.decode(code, hw)
  return masks
