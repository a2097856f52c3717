"""What training needs to know about what is learned: the protocol of a task.

A task lies in ctx_flax/tasks; training never imports one. Subclass Task and define what has no default.

A batch is {name: array (b, ...)} whose rows are examples: an image, a clip, an image with its boxes. Devices,
accumulation and inference in turns cut between rows only. Two of its arrays are known by name: 'weight'
float32 (b,), 1 for an example and 0 for a row that only fills up the last batch of a test, and 'bad' int32,
the indices of examples that could not be read, -1 for none, which never reaches the devices.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax

Config = Any  # an ml_collections.ConfigDict with the fields of the task
Batch = Mapping[str, Any]


class Outputs(NamedTuple):
  """What a network says about rows of a batch in training.

  Attributes:
    losses: {name: (sum, count)}, float32 scalars; the names are keys of Objective.weights.
    metrics: {name: (sum, count)}, of further numbers that add up.
    batch_stats: the updated statistics of BatchNorm; {} without any.
  """

  losses: dict[str, tuple[jax.Array, jax.Array]]
  metrics: dict[str, tuple[jax.Array, jax.Array]]
  batch_stats: Any


@dataclasses.dataclass(frozen=True)
class Objective:
  """What a training step minimises: sum over the losses of weight * sum / max(count, 1).

  Attributes:
    terms: (params, batch_stats, batch, key, step) -> Outputs, traced; `key` is of everything random, `step`
      the number of the update, from 0.
    weights: {name of a loss: weight}.
    counts: batch -> {name of a loss: count}, if the counts follow from the batch alone; None if they depend
      on the network, so that accumulation needs a forward pass to count first.
  """

  terms: Callable[..., Outputs]
  weights: Mapping[str, float]
  counts: Callable[[Batch], dict[str, jax.Array]] | None = None


class Tally(Protocol):
  """Collects what a test says about all examples, on the host."""

  def add(self, rows: Mapping[str, Any]) -> None:
    """Takes the rows of a batch, {name: numpy array (m, ...)}, without those that only fill it."""
    ...

  def result(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """The metrics {name: float}, from the rows and from the sums over all batches."""
    ...


class Evaluator(Protocol):
  """How the weights of a network are tested."""

  def outputs(self, variables: Any, batch: Batch) -> tuple[dict[str, tuple[Any, Any]], dict[str, Any]]:
    """Traced: (sums {name: (sum, count)}, rows {name: (b, ...)}) of a batch; either may be {}."""
    ...

  def tally(self, weights: str) -> Tally:
    """A new Tally, for one test of one set of weights, 'raw' or 'EMA'."""
    ...


class Task(Protocol):
  """A task as plain functions of a config.

  Attributes:
    name: config.task; part of a run's identity.
    best: the metric by which the best checkpoint is kept; the highest is the best.
    identity: groups of the config that make a run what it is, beside those that all tasks share.
    examples: what a row of a batch is, in the plural: in messages and in names of metrics.
    unreadable: what a test makes of an example that cannot be read, and of several: how 'unreadable image'
      and '3 of 100 images could not be read and' go on.
  """

  name: str
  best: str
  identity: tuple[str, ...] = ()
  examples: str = 'images'
  unreadable: tuple[str, str] = 'does not count in the test', 'do not count'

  def open_source(self, config: Config, split: str) -> Any:
    """The examples of 'train' or 'test'; they have a length."""
    ...

  def train_batches(
    self, source: Any, config: Config, start: int, process: int, processes: int
  ) -> Iterator[dict[str, Any]]:
    """Endless batches for the steps start, start + 1, ..., to be closed; part `process` of each batch."""
    ...

  def eval_batches(
    self, source: Any, config: Config, process: int, processes: int
  ) -> Iterator[dict[str, Any]]:
    """All examples once, in order, to be closed; every process makes the same number of batches."""
    ...

  def build_model(self, config: Config, source: Any) -> Any:
    """The network."""
    ...

  def initial_variables(self, config: Config, model: Any, key: jax.Array) -> Any:
    """Initial {'params', 'batch_stats'?}."""
    ...

  def objective(self, config: Config, model: Any, total_steps: int) -> Objective:
    """What a run of total_steps steps minimises."""
    ...

  def evaluator(self, config: Config, model: Any, source: Any) -> Evaluator:
    """How the network is tested on the examples of a source."""
    ...

  def headline(self, results: Mapping[str, Mapping[str, float]]) -> str:
    """One line about a test, {'raw': metrics, 'EMA': metrics}."""
    ...

  # From here on with defaults.

  def check_settings(self, config: Config) -> None:
    """Raises ValueError for a field of the task that has no meaning."""

  def check_batches(self, config: Config) -> None:
    """Raises ValueError for a field that no batch can be made with."""

  def check_sources(self, train_source: Any, test_source: Any) -> None:
    """Raises ValueError if training and test examples do not go together."""

  def remarks(self, train_source: Any, test_source: Any) -> list[str]:
    """Lines to be said about the data before training and by --mode=check."""
    return [f'{len(train_source):,} examples to train on, {len(test_source):,} to test on']

  def resolve(self, config: Config, workdir: Any, source: Any) -> Config:
    """The config with what it leaves open taken from the data, the run or the starting weights."""
    return config

  def fresh(self, config: Config) -> str:
    """Regex of the parameters that start anew whatever init.weights holds; '' for none."""
    return ''

  def describe_bad(self, source: Any, index: int, config: Config) -> str:
    """'NAME: reason' of an example that cannot be read."""
    return f'example {index}'

  def draw(self, batch: Batch, source: Any, path: Any, config: Config) -> None:
    """Draws the first training batch of a run as a PNG."""

  def draw_tested(self, tally: Tally, source: Any, path: Any, config: Config) -> None:
    """Draws what a test in training has seen as a PNG; by default nothing.

    Args:
      tally: of the test, with all rows; of the averaged weights, if the run keeps them.
      source: the test examples.
      path: of the picture, which is that of the test before, if there was one.
      config: of the run.
    """
    return

  def progress(self, values: Mapping[str, float]) -> str:
    """Words about the training metrics for the progress display, beside the loss."""
    return ''

  def table(self, results: Mapping[str, Mapping[str, float]]) -> Any:
    """What --mode=evaluate prints about a test besides the headline, for a rich console; '' for nothing."""
    return ''

  def layers(self, config: Config, model: Any) -> list[Any]:
    """Layers of the network for --mode=check, see ctx_flax.models.summary; [] if it is not summarised."""
    return []

  def size(self, config: Config) -> str:
    """How large the examples of `layers` are, in words such as '224 px'."""
    return ''

  def batch_shapes(self, config: Config, batch: Batch) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """{name: shapes of a training batch}, of all that there are: each is a program to compile.

    Args:
      config: of the run.
      batch: one of them, without 'bad'.
    """
    return {'': {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in batch.items()}}

  def milestones(
    self, config: Config, model: Any, last_step: int
  ) -> tuple[set[int], Callable[[int], dict[str, Any]]]:
    """(steps at which a schedule of the task turns, step -> {column: value}) for --mode=check."""
    return set(), lambda step: {}
