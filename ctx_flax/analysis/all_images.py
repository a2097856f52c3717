"""One pass of a run's network over all images of a source."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ctx_flax.data.decode import BadImage
from ctx_flax.models.inference import apply_in_turn
from ctx_flax.training import evaluation
from ctx_flax.training.over_images import rows_of


def over_images(
  run: Any, function: Callable, text: str, source: Any = None, limit: int = 0
) -> dict[str, np.ndarray]:
  """Applies the network to all images and keeps what `function` takes from its outputs.

  Args:
    run: a Run.
    function: (out, labels) -> {name: array with a row per image}, traced by jax.
    text: what the progress display says is done.
    source: of the images; None: the run's test images.
    limit: of the first so many images alone; 0 = of all.

  Returns:
    {name: array}, 'label' and 'index' among them, a row for every image that could be read, in order.

  Raises:
    BadImage: one could not be read, where data.on_bad_image is 'error', or none could.
  """
  parts = list(in_batches(run, function, text, source, limit))
  rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  if not len(rows['label']):
    raise BadImage(f'none of the {run.task.examples} could be read: check data.path')
  return rows


def in_batches(
  run: Any,
  function: Callable,
  text: str,
  source: Any = None,
  limit: int = 0,
  stream: Any = None,
) -> Iterator[dict[str, np.ndarray]]:
  """What `over_images` concatenates, batch by batch; `stream` is where progress is shown."""

  def outputs(variables, batch):
    _, out = apply_in_turn(run.model, variables, run.task.inputs(run.config, batch['image']))
    return {**function(run.task.decisions(run.model, out), batch['label']), 'label': batch['label']}

  return outputs_in_batches(run, outputs, text, source, limit, stream)


def outputs_in_batches(
  run: Any,
  function: Callable,
  text: str,
  source: Any = None,
  limit: int = 0,
  stream: Any = None,
  beside: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
  """The values of a function of variables and batches for all images, batch by batch.

  Args:
    run, text, source, limit, stream: as for `in_batches`.
    function: (variables, batch) -> {name: array with a row per image}, traced by jax.
    beside: numbers of images -> {name: array with a row for each}, added to the batch; numbers in the last
      batch may be beyond the last image.
  """
  source = run.source if source is None else source
  batches = run.task.eval_batches(source, run.config, 0, 1)
  return rows_of(
    function,
    run.variables,
    batches if beside is None else _with_arrays(batches, beside, run.config.eval.batch_size),
    lambda progress: evaluation.bad_examples(run.task, source, run.config, progress.warn),
    run.config,
    min(limit or len(source), len(source)),
    text,
    stream=stream,
    examples=run.task.examples,
  )


def _with_arrays(batches, beside, size):
  with contextlib.closing(batches):
    for number, batch in enumerate(batches):
      yield {**batch, **beside(np.arange(number * size, (number + 1) * size))}
