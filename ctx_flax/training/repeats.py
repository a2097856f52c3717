"""Numbers of runs that differ in their seed alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def mean_and_deviation(values: Sequence[float] | Any) -> tuple[float, float]:
  """(mean, standard deviation of the sample) of a list of numbers; the deviation of a single one is nan."""
  values = np.asarray(values, np.float64)
  return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float('nan')


def percent(shares: Sequence[float] | Any) -> str:
  """'61.10 ± 0.32', mean and deviation of shares 0..1 in percent; '61.10' of a single one."""
  mean, deviation = mean_and_deviation(100 * np.asarray(shares, np.float64))
  return f'{mean:.2f}' if np.isnan(deviation) else f'{mean:.2f} ± {deviation:.2f}'
