"""One pass of a network over all examples of a source: what tests, features and analyses share."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import numpy as np

from ctx_flax.training import parallel
from ctx_flax.training.feed import BadImages, Feed
from ctx_flax.training.logging import Progress


def outputs_of(
  step: Callable,
  variants: Mapping[str, Any],
  batches: Iterator[dict[str, Any]],
  bad: BadImages,
  action: str,
  prefetch: int,
) -> Generator[tuple[dict[str, Any], dict[str, Any]], None, None]:
  """Runs a step on every batch, for each of several sets of weights.

  Args:
    step: (variables, placed batch) -> outputs, of ctx_flax.training.parallel.
    variants: {name: variables}, on the devices.
    batches: is closed at the end.
    bad: is told of the examples that could not be read.
    action: what was done about these, for its message.
    prefetch: batches that are placed ahead.

  Yields:
    ({name: outputs}, the batch on the host).
  """

  def place(batch):
    bad.add(batch['bad'], action)
    return parallel.place_batch({name: value for name, value in batch.items() if name != 'bad'}), batch

  with contextlib.closing(Feed(batches, place, prefetch)) as feed:
    for placed, batch in feed:
      yield {name: step(variables, placed) for name, variables in variants.items()}, batch


def rows_of(
  function: Callable,
  variables: Any,
  batches: Iterator[dict[str, Any]],
  bad: Callable[[Progress], BadImages],
  config: Any,
  count: int,
  text: str,
  first: int = 0,
  stream: Any = None,
  examples: str = 'images',
) -> Iterator[dict[str, np.ndarray]]:
  """What a function of a network gives for every example that can be read, batch by batch, with progress.

  Args:
    function: (variables, batch) -> {name: array (b, ...)}, traced by jax; runs on all devices of one process.
    variables: of the network, in host or device memory.
    batches: of a task's eval_batches from batch `first` on; is closed at the end.
    bad: makes the BadImages for a progress display.
    config: uses eval.batch_size and data.prefetch.
    count: examples in all; those beyond are left out.
    text: what the progress display says is done.
    first: number of the first batch, from 0.
    stream: where progress is shown; None is the standard output.
    examples: what they are, in the plural.

  Yields:
    {name: array (m, ...)} of the examples of a batch, with their numbers as 'index'.
  """
  size = config.eval.batch_size
  total = -(-count // size)
  step, began = parallel.pmap_rows(function), time.monotonic()
  with Progress(total, first, stream=stream) as progress:
    passes = outputs_of(
      step, {'': parallel.replicate(variables)}, batches, bad(progress), 'left out', config.data.prefetch
    )
    with contextlib.closing(passes):
      for number, (outputs, batch) in enumerate(passes, first + 1):
        index = np.arange((number - 1) * size, number * size)
        kept = (batch['weight'] > 0) & (index < count)
        yield {name: value[kept] for name, value in {**outputs[''], 'index': index}.items()}
        rate = (time.monotonic() - began) / (number - first)
        shown = f'{text}: {min(number * size, count):,} {examples}'
        progress.update(number, shown, rate * (total - number))
        if number == total:
          break
