"""Intervals of means and their differences by the bootstrap: images resampled with replacement.

Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentiles).
"""

import numpy as np

LEVEL = 0.95  # share of the samples within an interval
AT_ONCE = 1 << 22  # counts in memory: samples times images


def resampled_sums(values, resamples, seed):
  """Sums of the rows of `values` (m, k) over samples of m rows with replacement: float64 (resamples, k).

  All columns are summed over the same samples, so that differences of columns are paired.
  """
  m, k = values.shape
  rng, sums = np.random.default_rng(seed), np.empty((resamples, k))
  step = max(AT_ONCE // m, 1)
  for start in range(0, resamples, step):
    some = range(start, min(start + step, resamples))
    counts = np.stack([np.bincount(rng.integers(m, size=m), minlength=m) for _ in some])
    sums[some] = counts.astype(np.float64) @ values
  return sums


def percentiles(samples):
  """(low, high), each (k,): LEVEL of the samples (resamples, k) lie between; nan if a sample is nan."""
  tail = 100 * (1 - LEVEL) / 2
  return np.percentile(samples, (tail, 100 - tail), axis=0)
