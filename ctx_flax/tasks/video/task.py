"""Classification of clips, as a Task: losses, metrics and class counts are those of images."""

import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ctx_flax.data import clip_pipeline, clip_sources, clip_transforms, image_grid
from ctx_flax.data.clip_files import VIDEO, VideoFiles
from ctx_flax.models import MODELS
from ctx_flax.tasks.classification.objective import objective
from ctx_flax.tasks.classification.task import Classification
from ctx_flax.tasks.video.evaluator import ClipEvaluator
from ctx_flax.tasks.video.reading import AVERAGES, normalised, per_frame, reading, together
from ctx_flax.training.task import Batch, Objective, Task

GRID = 16  # clips in the picture of augmented ones


class Video(Classification):
  """Clips, each of one class."""

  name = 'video'
  examples = 'videos'

  def open_source(self, config: Any, split: str) -> Any:
    return clip_sources.open_clip_source(config.data, split)

  def train_batches(
    self, source: Any, config: Any, start: int = 0, process: int = 0, processes: int = 1
  ) -> Iterator[dict[str, Any]]:
    return clip_pipeline.train_batches(source, config, start, process, processes)

  def eval_batches(
    self, source: Any, config: Any, process: int = 0, processes: int = 1
  ) -> Iterator[dict[str, Any]]:
    return clip_pipeline.eval_batches(source, config, process, processes, views=config.eval.views)

  def objective(self, config: Any, model: Any, total_steps: int) -> Objective:
    return objective(config, model, total_steps, reading(config, model))

  def evaluator(self, config: Any, model: Any, source: Any) -> Any:
    return ClipEvaluator(config, model)

  def check_settings(self, config: Any) -> None:
    super().check_settings(config)
    if config.model.segments < 2:
      raise ValueError(
        f'model.segments is {config.model.segments}: clips have 2 frames or more, such as 8; '
        'the task of images is classification'
      )
    if config.eval.average not in AVERAGES:
      raise ValueError(f'eval.average must be one of {AVERAGES}, but is {config.eval.average!r}')
    contextual = MODELS[config.model.name][1].get('contextual') if config.model.name in MODELS else False
    if config.eval.average == 'scores' and contextual:
      raise ValueError(
        f'eval.average is scores, but {config.model.name} excludes other classes in every view: their scores '
        'have no mean; eval.average=probabilities'
      )

  def check_batches(self, config: Any) -> None:
    clip_pipeline.check_settings(config)

  def remarks(self, train_source: Any, test_source: Any) -> list[str]:
    return clip_sources.describe(train_source, test_source)

  def describe_bad(self, source: Any, index: int, config: Any) -> str:
    return clip_pipeline.describe_bad(source, index, config)

  def draw(self, batch: Batch, source: Any, path: str | os.PathLike[str], config: Any) -> None:
    captions = image_grid.captions(dict(batch), source.class_names)[:GRID]
    data = config.data
    image_grid.save_image_grid(batch['image'][:GRID], pathlib.Path(path), data.mean, data.std, captions)

  kind = VIDEO

  def source_of_files(self, files: Sequence[str], class_names: Sequence[str]) -> Any:
    return VideoFiles('', files, np.zeros(len(files), np.int32), class_names)

  def transform(self, config: Any) -> Callable[[dict[str, Any]], np.ndarray]:
    return clip_transforms.eval_clip_transform(config)

  def inputs(self, config: Any, examples: Any) -> Any:
    return normalised(examples, config.data.mean, config.data.std)

  def decisions(self, model: Any, out: Any) -> Any:
    return {**out, **together(out)} if per_frame(model) else out

  def one_view(self, config: Any) -> Any:
    config = config.copy_and_resolve_references()
    config.eval.views = 'center'
    if config.data.sampling == 'twice':  # and not at two sets of frames
      config.data.sampling = 'uniform'
    return config


TASK: Task = Video()
