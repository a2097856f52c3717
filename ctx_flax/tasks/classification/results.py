"""What is said about a test: accuracy, loss and recall by stage. Results are {'raw' or 'EMA': metrics}."""

import re
from collections.abc import Mapping
from typing import Any

import rich.table

Results = Mapping[str, Mapping[str, float]]


def stages(values: Mapping[str, float]) -> list[int]:
  """The numbers of the stages of which {name: float} holds an accuracy."""
  return sorted(int(name[8:]) for name in values if re.fullmatch(r'accuracy\d+', name))


def percent_by_stage(values: Mapping[str, float]) -> str:
  """'61.1 | 88.9 | 97.5 | 98.6 %', the accuracies of the stages that {name: float} holds."""
  return ' | '.join(f'{100 * values[f"accuracy{s}"]:.1f}' for s in stages(values)) + ' %'


def headline(results: Results) -> str:
  """One line with the accuracies of the stages, for raw and averaged weights."""
  return 'test accuracy by stage ' + ', '.join(f'{w}: {percent_by_stage(v)}' for w, v in results.items())


def table(results: Results) -> Any:
  """A table of accuracy, loss and recall per stage."""
  shown = rich.table.Table()
  for column in ('weights', 'stage', 'accuracy', 'loss', 'recall'):
    shown.add_column(column, justify='left' if column == 'weights' else 'right')
  for variant, values in results.items():
    for s in stages(values):
      # The recall of a selection that does not exist (stage 1, plain networks) is left open.
      recall = f'{100 * values[f"recall{s}"]:.2f} %' if f'recall{s}' in values else ''
      accuracy = f'{100 * values[f"accuracy{s}"]:.2f} %'
      shown.add_row(variant, str(s), accuracy, f'{values[f"loss{s}"]:.4f}', recall)
  return shown
