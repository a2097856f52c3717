"""Classification of images, as a Task."""

import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ctx_flax.data import image_grid, pipeline, sources, transforms
from ctx_flax.data.file_source import FileSource
from ctx_flax.data.image_files import IMAGE
from ctx_flax.models import weights
from ctx_flax.models.summary import summarise
from ctx_flax.tasks.classification import class_counts, networks, results
from ctx_flax.tasks.classification.objective import NORMALISE, StageEvaluator, objective
from ctx_flax.training.task import Batch, Objective, Task

GRID = 64  # images in the picture of augmented ones


class Classification(Task):
  """Images, each of one class (or, mixed, of two)."""

  name = 'classification'
  best = 'accuracy'
  identity = ('loss',)

  def open_source(self, config: Any, split: str) -> Any:
    return sources.open_source(config.data, split)

  def train_batches(
    self, source: Any, config: Any, start: int = 0, process: int = 0, processes: int = 1
  ) -> Iterator[dict[str, Any]]:
    return pipeline.train_batches(source, config, start, process, processes)

  def eval_batches(
    self, source: Any, config: Any, process: int = 0, processes: int = 1
  ) -> Iterator[dict[str, Any]]:
    return pipeline.eval_batches(source, config, process, processes)

  def build_model(self, config: Any, source: Any) -> Any:
    return networks.build_model(config, source)

  def initial_variables(self, config: Any, model: Any, key: jax.Array) -> Any:
    return networks.initial_variables(config, model, key)

  def objective(self, config: Any, model: Any, total_steps: int) -> Objective:
    return objective(config, model, total_steps)

  def evaluator(self, config: Any, model: Any, source: Any) -> StageEvaluator:
    return StageEvaluator(config, model)

  def headline(self, results_of: Mapping[str, Mapping[str, float]]) -> str:
    return results.headline(results_of)

  def check_settings(self, config: Any) -> None:
    if not 0 <= config.train.class_counts_warmup <= 1:
      raise ValueError(
        'train.class_counts_warmup must be a fraction of the run, 0 to 1, but is '
        f'{config.train.class_counts_warmup}'
      )
    if config.loss.normalise not in NORMALISE:
      raise ValueError(f'loss.normalise must be one of {NORMALISE}, but is {config.loss.normalise!r}')
    if (config.data.mixup or config.data.cutmix) and config.train.batch_size // jax.process_count() % 2:
      raise ValueError(
        f'train.batch_size is {config.train.batch_size}: images are mixed in pairs, so the part of each of '
        f'{jax.process_count()} processes must be even'
      )
    if config.loss.alpha < 0:
      raise ValueError(f'loss.alpha must be 0 or more, but is {config.loss.alpha}')
    if not 0 <= config.loss.label_smoothing < 1:
      raise ValueError(
        f'loss.label_smoothing must be at least 0 (off) and below 1, but is {config.loss.label_smoothing}'
      )

  def check_batches(self, config: Any) -> None:
    pipeline.check_settings(config)

  def check_sources(self, train_source: Any, test_source: Any) -> None:
    networks.check_classes(train_source, test_source)

  def remarks(self, train_source: Any, test_source: Any) -> list[str]:
    return sources.describe(train_source, test_source)

  def resolve(self, config: Any, workdir: Any, source: Any) -> Any:
    return class_counts.with_class_counts(config, workdir, source.num_classes)

  def fresh(self, config: Any) -> str:
    return weights.class_parameters() if config.init.reset_classes else ''

  def describe_bad(self, source: Any, index: int, config: Any) -> str:
    return pipeline.describe_bad(source, index, config)

  def draw(self, batch: Batch, source: Any, path: str | os.PathLike[str], config: Any) -> None:
    captions = image_grid.captions(dict(batch), source.class_names)[:GRID]
    data = config.data
    image_grid.save_image_grid(batch['image'][:GRID], pathlib.Path(path), data.mean, data.std, captions)

  def progress(self, values: Mapping[str, float]) -> str:
    return f'train accuracy {100 * values["accuracy"]:.1f} %'

  def table(self, results_of: Mapping[str, Mapping[str, float]]) -> Any:
    return results.table(results_of)

  def layers(self, config: Any, model: Any) -> list[Any]:
    side = config.data.image_size
    return summarise(model, model.example_shape(side), depth=1)

  def size(self, config: Any) -> str:
    return f'{config.data.image_size} px'

  def milestones(
    self, config: Any, model: Any, last_step: int
  ) -> tuple[set[int], Callable[[int], dict[str, Any]]]:
    return class_counts.milestones(config, model, last_step)

  # What the analyses and the export ask.

  kind = IMAGE  # of the files that they are given

  def classes_of(self, config: Any, workdir: Any, warn: Callable[[str], Any] = print) -> Any:
    """See networks.classes_of."""
    return networks.classes_of(config, workdir, self.open_source, warn)

  def source_of_files(self, files: Sequence[str], class_names: Sequence[str]) -> Any:
    """A Source of files whose classes are not known; every label is 0."""
    return FileSource('', files, np.zeros(len(files), np.int32), class_names)

  def transform(self, config: Any) -> Callable[[dict[str, Any]], np.ndarray]:
    """Element of a source -> an example of a batch, as in a test."""
    return transforms.eval_transform(config)

  def inputs(self, config: Any, examples: Any) -> Any:
    """The examples of a batch as the network takes them."""
    return examples

  def decisions(self, model: Any, out: Any) -> Any:
    """The outputs of a network with one decision of every stage about an example, (b, n)."""
    return out

  def one_view(self, config: Any) -> Any:
    """The config with tests that look at an example once."""
    return config


TASK: Task = Classification()
