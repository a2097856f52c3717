"""What is said about training a detector and about a test of it. Results are {'raw' or 'EMA': metrics}."""

import math
from collections.abc import Mapping
from typing import Any

import rich.table

from ctx_flax.tasks.detection.average_precision import SIZES
from ctx_flax.tasks.detection.results import KINDS

Results = Mapping[str, Mapping[str, float]]
COLUMNS = (
  {'ap': 'AP', 'ap50': 'AP50', 'ap75': 'AP75'} | {f'ap_{size}': size for size in SIZES} | {'ar100': 'AR100'}
)


def headline(results: Results) -> str:
  """One line with the average precision of masks and boxes, for raw and averaged weights."""
  return 'test AP ' + ', '.join(f'{weights}: {_in_short(values)}' for weights, values in results.items())


def _in_short(values: Mapping[str, float]) -> str:
  if 'mask_ap' not in values:
    return f'unknown, {values["detections"]:.1f} detections an image and nothing to compare them with'
  return f'{_percent(values["mask_ap"])} of masks, {_percent(values["box_ap"])} of boxes'


def progress(values: Mapping[str, float]) -> str:
  """The regions of the first stage: the share that is classified rightly, and how many hold an object."""
  return f'{100 * values["accuracy0"]:.1f} % of regions right, {values["positives0"]:.0f} of an object'


def rows(results: Results) -> list[list[str]]:
  """COCO's metrics of masks and boxes: [[weights, 'mask' or 'box', and what COLUMNS name], ...].

  [] if nothing was annotated.
  """
  return [
    [weights, kind, *(_percent(values[f'{kind}_{name}']) for name in COLUMNS)]
    for weights, values in results.items()
    for kind in reversed(KINDS)
    if f'{kind}_ap' in values
  ]


def table(results: Results) -> Any:
  """A table of COCO's metrics for masks and boxes; '' if nothing was annotated."""
  shown = rich.table.Table()
  for column in ('weights', 'of', *COLUMNS.values()):
    shown.add_column(column, justify='left' if column in ('weights', 'of') else 'right')
  for row in rows(results):
    shown.add_row(*row)
  lost = max(values.get('overflow', 0.0) for values in results.values())
  if lost:
    shown.caption = (
      f'{100 * lost:.1f} % of the images had more candidates than model.candidates, and may lack detections'
    )
  return shown if shown.row_count else ''


def _percent(value: float) -> str:
  """'36.1 %'; '' for what no object is of."""
  return '' if math.isnan(value) else f'{100 * value:.1f} %'
