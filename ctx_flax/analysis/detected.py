"""A test of a detector whose detections are kept: what the analyses of its failures start from."""

import dataclasses
import sys
from typing import Any

from ctx_flax.data import detection_pipeline
from ctx_flax.files import printable
from ctx_flax.tasks.detection.evaluator import DetectionEvaluator, is_annotated
from ctx_flax.tasks.detection.ground_truth import GroundTruth
from ctx_flax.tasks.detection.results import Result
from ctx_flax.training import evaluation, parallel
from ctx_flax.training import step as steps


@dataclasses.dataclass(frozen=True)
class Detected:
  """What a test said.

  Attributes:
    ground_truth: what is annotated.
    results: the detections, see ctx_flax.tasks.detection.results.
    metrics: {name: float}, those of --mode=evaluate.
    unreadable: how many images could not be read: they have no detections.
    index: {id of an image: its number in the run's source}.
  """

  ground_truth: GroundTruth
  results: list[Result]
  metrics: dict[str, float]
  unreadable: int
  index: dict[int, int]


def check_testable(run: Any) -> None:
  """Raises ValueError for images whose objects are not known, and for one that fits into no canvas."""
  source = run.source
  if not is_annotated(source):
    raise ValueError(
      f'{printable(source.annotation_file)} lists no objects, so that nothing can be said to be wrong: take '
      'another data.test_split'
    )
  detection_pipeline.check_canvases(source, run.config, 'test')


def detect(run: Any) -> Detected:
  """Tests a run on its test images as --mode=evaluate does, with progress on the standard error.

  Raises:
    ValueError: see `check_testable`.
    BadImage: an image cannot be read, and data.on_bad_image is 'error'.
  """
  check_testable(run)
  config, source = run.config, run.source
  evaluator = _Keeping(config, run.model, source)
  step = parallel.pmap_eval_step(steps.make_eval_step(evaluator))
  with evaluation.progress_of(source, stream=sys.stderr) as progress:
    bad = evaluation.bad_examples(run.task, source, config, progress.warn)
    variants, tell = {run.weights: run.variables}, evaluation.teller(progress, source, run.task)
    results = evaluation.test(run.task, evaluator, step, variants, source, config, bad, tell=tell)
  index = {image: number for number, image in enumerate(source.image_ids.tolist())}
  kept = evaluator.kept.results
  return Detected(evaluator.ground_truth, kept, results[run.weights], bad.take(), index)


class _Keeping(DetectionEvaluator):
  """Keeps the tally of its last test."""

  def tally(self, weights: str) -> Any:
    self.kept = super().tally(weights)
    return self.kept
