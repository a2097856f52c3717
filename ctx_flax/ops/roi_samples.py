"""Where RoIAlign looks, one axis at a time, and how much of each cell of a map goes into each bin.

RoIAlign is separable: a bin is the sum over the cells of a map, each times a weight of its row and one of its
column. Letters: n boxes, s bins along an axis, t cells along it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Samples(NamedTuple):
  """The samples of boxes along one axis of their maps, each array (n,).

  Attributes:
    start: where the first bin begins, in cells; the centres of cells lie on integers.
    length: of a bin, in cells.
    number: samples in a bin, evenly spaced; 0 leaves a box out.
    side: cells of the box's map along the axis.
  """

  start: jax.Array
  length: jax.Array
  number: jax.Array
  side: jax.Array


def samples_of(
  low: jax.Array, high: jax.Array, scale: jax.Array, side: jax.Array, bins: int, sampling_ratio: int
) -> Samples:
  """The samples of boxes from `low` to `high` pixels on maps with `scale` cells per pixel, all (n,)."""
  start, end = low * scale - 0.5, high * scale - 0.5
  finite = jnp.isfinite(start) & jnp.isfinite(end)
  start, length = jnp.where(finite, start, 0), jnp.where(finite, end - start, 0) / bins
  number = jnp.full_like(length, sampling_ratio) if sampling_ratio else jnp.maximum(jnp.ceil(length), 0)
  return Samples(start, length, jnp.where(finite, number, 0), side.astype(start.dtype))


def weights_of(samples: Samples, cells: jax.Array, bins: int, sampling_ratio: int) -> jax.Array:
  """How much of each of the `cells` (n, t), numbers of rows or columns, goes into each bin: (n, s, t).

  A sample at y counts if -1 <= y <= side. It moves to the nearest place within [0, side - 1], and takes
  1 - |y - cell| of the cells on both sides. A bin is the mean of its samples.
  """
  # A fourth axis, the first, for the samples that may touch a cell.
  start, length, number, side = (array[None, :, None, None] for array in samples)
  cell = cells[None, :, None, :].astype(start.dtype)
  divisor = jnp.maximum(number, 1)
  low = start + jnp.arange(bins, dtype=start.dtype)[None, None, :, None] * length
  if sampling_ratio:
    first, terms = jnp.zeros_like(cell), sampling_ratio
  else:
    # However many samples a bin has, only those within a cell of this one count. As n of them are in more
    # than n - 1 cells, these are at most three, after at most one that is too far. One more for rounding.
    apart = jnp.where(length > 0, length / divisor, 1)
    first, terms = jnp.clip(jnp.floor((cell - 1 - low) / apart - 0.5), 0, divisor - 1), 5
  sample = first + jnp.arange(terms, dtype=start.dtype)[:, None, None, None]
  y = low + (sample + 0.5) * length / divisor
  counts = (sample < number) & (y >= -1) & (y <= side)
  shares = jnp.maximum(1 - jnp.abs(jnp.clip(y, 0, side - 1) - cell), 0)
  return jnp.sum(jnp.where(counts, shares, 0) / divisor, 0)
