"""COCO's metrics as a Tally: masks become run-length codes as batches come in."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctx_flax.tasks.detection.average_precision import coco_metrics
from ctx_flax.tasks.detection.ground_truth import GroundTruth
from ctx_flax.tasks.detection.results import KINDS, Result, image_results
from ctx_flax.training.terms import Terms, summarise


class CocoTally:
  """Collects the detections of all images, and evaluates them at the end.

  Images of the ground truth that no row tells of, as they could not be read, count as images without
  detections: what is annotated there is missed, as on COCO's server. Devices and processes all bring the same
  rows together, so that every process evaluates the same results.

  Args:
    ground_truth: of all images of the source.
    image_ids: the image of each index of the source.
    category_ids: the category of each label.
    kinds: of 'box' and 'mask', which are evaluated.
    area: see `average_precision.precision_recall`.
    backend: the same.

  Attributes:
    ground_truth: as above.
    results: of the images so far, see ctx_flax.tasks.detection.results.
  """

  def __init__(
    self,
    ground_truth: GroundTruth,
    image_ids: Sequence[Any],
    category_ids: Sequence[int],
    kinds: Sequence[str] = tuple(KINDS),
    area: str = 'mask',
    backend: str = '',
  ):
    self.results: list[Result] = []
    self.ground_truth = ground_truth
    self._image_ids = np.asarray(image_ids).tolist()
    self._category_ids = np.asarray(category_ids).tolist()
    self._settings = kinds, area, backend
    self._seen: set[int] = set()

  def add(self, rows: Mapping[str, np.ndarray]) -> None:
    """Takes the detections of a batch, see `results.image_results`.

    Args:
      rows: 'index' int (m,), of the source, 'boxes' (m, n, 4), 'scores', 'labels' and 'valid' (m, n), 'masks'
        (m, n, 28, 28) if they are evaluated; 'weight' (m,) is 0 for rows to be left out. A second row of an
        image is left out too.
    """
    weights = rows.get('weight', np.ones(len(rows['index'])))
    for row, index in enumerate(map(int, rows['index'])):
      if weights[row] <= 0 or index in self._seen:
        continue
      if not 0 <= index < len(self._image_ids):
        raise ValueError(f'a row is of image {index} of a source of {len(self._image_ids)} images')
      self._seen.add(index)
      image_id = self._image_ids[index]
      image = self.ground_truth.images[image_id]
      detections = {name: rows[name][row] for name in ('boxes', 'scores', 'labels', 'valid')}
      if 'mask' in self._settings[0]:
        detections['masks'] = rows['masks'][row]
      hw = image['height'], image['width']
      self.results += image_results(image_id, hw, detections, self._category_ids)

  def result(self, sums: Terms) -> dict[str, float]:
    """The metrics of `average_precision.coco_metrics`, and the means of what was summed."""
    return summarise(sums, {}) | coco_metrics(self.ground_truth, self.results, *self._settings)
