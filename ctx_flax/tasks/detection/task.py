"""Detection and segmentation of objects, as a Task."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from ctx_flax.data import canvases, detection_grid, detection_pipeline, detection_sources
from ctx_flax.data.image_files import IMAGE
from ctx_flax.files import printable
from ctx_flax.models import Detector
from ctx_flax.models.summary import summarise
from ctx_flax.tasks.detection import networks, pictures, reports
from ctx_flax.tasks.detection.average_precision import AREAS
from ctx_flax.tasks.detection.evaluator import DetectionEvaluator, is_annotated
from ctx_flax.tasks.detection.objective import objective
from ctx_flax.tasks.detection.settings import settings_of
from ctx_flax.training.task import Batch, Objective, Task

GRID = 16  # images in the picture of augmented ones


class Detection(Task):
  """Images with objects: a box, a class and a mask each."""

  name = 'detection'
  best = 'mask_ap'
  identity = 'loss', 'assignment', 'sampling', 'eval.short_side'
  unreadable = 'counts in the test as one without detections', 'count as images without detections'

  def open_source(self, config: Any, split: str) -> Any:
    return detection_sources.open_detection_source(config.data, split)

  def train_batches(
    self, source: Any, config: Any, start: int = 0, process: int = 0, processes: int = 1
  ) -> Iterator[dict[str, Any]]:
    return detection_pipeline.train_batches(source, config, start, process, processes)

  def eval_batches(
    self, source: Any, config: Any, process: int = 0, processes: int = 1
  ) -> Iterator[dict[str, Any]]:
    return detection_pipeline.eval_batches(source, config, process, processes)

  def build_model(self, config: Any, source: Any) -> Any:
    return networks.build_model(config, source)

  def initial_variables(self, config: Any, model: Any, key: jax.Array) -> Any:
    return networks.initial_variables(model, key)

  def objective(self, config: Any, model: Any, total_steps: int) -> Objective:
    return objective(config, model, total_steps)

  def evaluator(self, config: Any, model: Any, source: Any) -> DetectionEvaluator:
    return DetectionEvaluator(config, model, source)

  def headline(self, results: Mapping[str, Mapping[str, float]]) -> str:
    return reports.headline(results)

  def check_settings(self, config: Any) -> None:
    networks.check_detector(config)
    settings_of(config)
    if config.init.freeze_norm:
      raise ValueError(
        'init.freeze_norm is True, but the BatchNorm of a backbone keeps its statistics anyway, and that of '
        'the heads has none to keep: leave it False'
      )
    if config.eval.area not in AREAS:
      raise ValueError(f'eval.area must be one of {", ".join(AREAS)}, but is {config.eval.area!r}')

  def check_batches(self, config: Any) -> None:
    detection_pipeline.check_settings(config)

  def check_sources(self, train_source: Any, test_source: Any) -> None:
    detection_sources.check_categories(train_source, test_source)
    if not is_annotated(test_source):
      raise ValueError(
        f'{printable(test_source.annotation_file)} lists no objects, so that training could not be tested: '
        'take another data.test_split, and this one for --mode=evaluate'
      )

  def remarks(self, train_source: Any, test_source: Any) -> list[str]:
    return detection_sources.describe(train_source, test_source)

  def resolve(self, config: Any, workdir: Any, source: Any) -> Any:
    return networks.with_contexts(config, workdir)

  def fresh(self, config: Any) -> str:
    return Detector.class_parameters if config.init.reset_classes else ''

  def describe_bad(self, source: Any, index: int, config: Any) -> str:
    return detection_pipeline.describe_bad(source, index, config)

  def draw(self, batch: Batch, source: Any, path: str | os.PathLike[str], config: Any) -> None:
    detection_grid.save_detection_grid(dict(batch), path, source.class_names, GRID)

  def draw_tested(self, tally: Any, source: Any, path: str | os.PathLike[str], config: Any) -> None:
    pictures.save_tested(source, tally, path)

  def progress(self, values: Mapping[str, float]) -> str:
    return reports.progress(values)

  def table(self, results: Mapping[str, Mapping[str, float]]) -> Any:
    return reports.table(results)

  def layers(self, config: Any, model: Any) -> list[Any]:
    return summarise(model, (*self._canvases(config)[-1], 3), depth=2)

  def size(self, config: Any) -> str:
    h, w = self._canvases(config)[-1]
    return f'{h} x {w} px'

  def batch_shapes(self, config: Any, batch: Batch) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """By canvas; standing ones take what lying ones do."""
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()}
    b, g = batch['labels'].shape
    return {
      f'{h} x {w}': shapes
      | {
        'image': jax.ShapeDtypeStruct((b, h, w, 3), batch['image'].dtype),
        'masks': jax.ShapeDtypeStruct((b, g, h, w // 8), batch['masks'].dtype),
      }
      for h, w in self._canvases(config)
    }

  # What the analyses and the export ask.

  kind = IMAGE  # of the files that they are given

  def classes_of(self, config: Any, workdir: Any, warn: Callable[[str], Any] = print) -> Any:
    """See networks.classes_of."""
    return networks.classes_of(config, workdir, self.open_source, warn)

  def one_view(self, config: Any) -> Any:
    """The config as it is: tests look at an image once."""
    return config

  def _canvases(self, config: Any) -> list[tuple[int, int]]:
    """(h, w) of the lying canvases, from small to large."""
    both = canvases.both_orientations(config.data.canvases).tolist()
    return [(h, w) for h, w in both if h <= w]


TASK: Task = Detection()
