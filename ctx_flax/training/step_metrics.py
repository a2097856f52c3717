"""The metrics of training steps, from the devices to a line of metrics.jsonl and of the progress display."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ctx_flax.training import parallel, terms
from ctx_flax.training.halt import Halt
from ctx_flax.training.task import Task

MANY_SKIPPED = 50  # steps in a row without a finite loss and gradient are no accident


def fetch_metrics(
  pending: list[Any], step: int, weights: Mapping[str, float], skipped_in_a_row: int = 0
) -> tuple[dict[str, float], int]:
  """Sums up the terms of the steps up to `step`, on the host.

  Returns:
    {name: float}, if steps may be skipped with 'skipped', how many were; and how many steps up to this
    one were skipped one after the other, `skipped_in_a_row` of them before these.

  Raises:
    Halt: naming the first step whose loss is not finite, or when MANY_SKIPPED were skipped in a row.
  """
  pending = parallel.fetch(pending)
  total: dict = {}
  for number, of_step in enumerate(pending, step - len(pending) + 1):
    if not np.isfinite(terms.summarise(of_step, weights)['loss']):
      raise Halt(
        f'the loss of step {number} is not finite; the checkpoints are of steps before it. '
        'Try a lower optimizer.learning_rate, a longer warm-up or optimizer.clip_norm=1',
        1,
      )
    skipped = 'skipped' in of_step and of_step['skipped'][0] > 0
    skipped_in_a_row = skipped_in_a_row + 1 if skipped else 0
    if skipped_in_a_row == MANY_SKIPPED:
      raise Halt(
        f'every step from {number - MANY_SKIPPED + 1} to {number} was skipped: none had a finite loss and '
        'gradient. The weights are those of the step before them; try a lower optimizer.learning_rate',
        1,
      )
    total = terms.add(total, of_step)
  values = terms.summarise(total, weights)
  if 'skipped' in total:
    values['skipped'] = float(total['skipped'][0])
  return values, skipped_in_a_row


def in_short(line: Mapping[str, float], task: Task) -> str:
  """What the progress display says of a line of metrics."""
  values = {name.removeprefix('train/'): value for name, value in line.items() if name.startswith('train/')}
  words = task.progress(values)
  skipped = f'{values["skipped"]:.0f} skipped' if values.get('skipped') else ''
  speed = f'{line[f"{task.examples}_per_second"]:.0f} {task.examples}/s'
  rates = f'{speed}  {100 * line["data/wait_share"]:.0f} % waiting for data'
  return '  '.join(filter(None, (f'loss {values["loss"]:.3f}', words, skipped, rates)))
