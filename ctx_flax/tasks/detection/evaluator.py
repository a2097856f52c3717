"""Testing a detector: its detections on all images, COCO's metrics of them, and files of results."""

import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from ctx_flax.data import detection_pipeline
from ctx_flax.files import printable
from ctx_flax.tasks.detection.ground_truth import GroundTruth
from ctx_flax.tasks.detection.images import network_inputs
from ctx_flax.tasks.detection.results import KINDS, Result, write_results
from ctx_flax.tasks.detection.tally import CocoTally
from ctx_flax.training.halt import failed_report
from ctx_flax.training.task import Batch
from ctx_flax.training.terms import Terms, summarise

ROWS = 'boxes', 'scores', 'labels', 'valid', 'masks'  # of Detections: what the tally takes of an image


class DetectionEvaluator:
  """Tests a detector on the images of a source.

  Args:
    config: uses data.{mean, std, canvases, long_side} and eval.{short_side, area, results}.
    model: a detector of ctx_flax.models.
    source: the images.

  Raises:
    ValueError: an image fits into no canvas, or nothing is annotated and no results are asked for.
  """

  def __init__(self, config: Any, model: Any, source: Any):
    detection_pipeline.check_canvases(source, config, 'test')
    self._config, self._model, self._source = config, model, source
    if not is_annotated(source) and not config.eval.results:
      raise ValueError(
        f'{printable(source.annotation_file)} lists no objects to compare detections with: name a folder '
        'that they are written to, --config.eval.results=DIR'
      )

  def outputs(self, variables: Any, batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
    """See ctx_flax.training.task.Evaluator; rows are what CocoTally takes, boxes in pixels of the file.

    The sums are 'detections', of an image, and 'overflow', the share of images of which there were more
    candidates than model.candidates, so that detections may be missing.
    """
    data = self._config.data
    images, extents = network_inputs(batch, data.mean, data.std)
    found = self._model.apply(variables, images, **extents, scale=batch['scale'])
    weights = batch['weight']
    counts = {'detections': found.valid.sum(-1), 'overflow': found.overflow}
    sums = {name: ((weights * count).sum(), weights.sum()) for name, count in counts.items()}
    return sums, {'index': batch['index'], **{name: getattr(found, name) for name in ROWS}}

  def tally(self, weights: str) -> 'ResultsTally':
    """Collects detections; its files are named after the weights, 'raw' or 'EMA'."""
    source, options = self._source, self._config.eval
    collected = CocoTally(self.ground_truth, source.image_ids, source.category_ids, area=options.area)
    return ResultsTally(collected, is_annotated(source), options.results, weights)

  @functools.cached_property
  def ground_truth(self) -> GroundTruth:
    """The annotated objects of all images."""
    return GroundTruth(self._source.ground_truth())


class ResultsTally:
  """A CocoTally that may write what it has collected, and that can do without annotations.

  Args:
    collected: takes the rows.
    annotated: whether there is anything to compare detections with; else the sums alone are metrics.
    folder: gets FOLDER/WEIGHTS_boxes.json and FOLDER/WEIGHTS_masks.json; '' = nothing is written.
    weights: what is tested.
  """

  def __init__(self, collected: CocoTally, annotated: bool, folder: str, weights: str):
    self._collected, self._annotated = collected, annotated
    self._folder, self._weights = folder, weights

  @property
  def results(self) -> list[Result]:
    """The detections so far, see ctx_flax.tasks.detection.results."""
    return self._collected.results

  @property
  def ground_truth(self) -> GroundTruth:
    """The annotated objects of all images."""
    return self._collected.ground_truth

  def add(self, rows: Mapping[str, Any]) -> None:
    """Takes the rows of a batch."""
    self._collected.add(rows)

  def result(self, sums: Terms) -> dict[str, float]:
    """Writes the files, and returns the metrics. Halt if they cannot be written."""
    # All processes have collected the same.
    if self._folder and jax.process_index() == 0:
      folder = pathlib.Path(os.path.expanduser(self._folder))
      with failed_report(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
          write_results(folder / f'{self._weights}_{_plural(kind)}.json', self._collected.results, kind)
    return self._collected.result(sums) if self._annotated else summarise(sums, {})


def is_annotated(source: Any) -> bool:
  """Whether objects are known in the images of a source."""
  return bool(source.object_counts.any())


def _plural(kind: str) -> str:
  return {'box': 'boxes', 'mask': 'masks'}[kind]
