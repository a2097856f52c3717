"""Two ways to compute RoIAlign and its gradient for a few boxes on one map.

Both multiply cells by the weights of their rows and of their columns (roi_samples.py) and add up. `whole`
does so with the whole map and all boxes at once: a large matrix product, without gathers and scatters.
`windows` does so with the part of the map that a box touches, window after window: thousands of times less
work.

Letters: n boxes, h w grid of a map, s r bins along y and x, t cells along a window, c channels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ctx_flax.ops.roi_samples import Samples, weights_of

Size = tuple[int, int]  # bins (rows, columns)
WINDOW = 16  # cells along the side of a window
# On GPUs float32 products are rounded to 10 bits otherwise, which costs 1e-3.
PRECISION = jax.lax.Precision.HIGHEST


def whole(total: jax.Array, image: jax.Array, y: Samples, x: Samples, size: Size, ratio: int) -> jax.Array:
  """Adds to `total` (n, s, r, c) what the boxes take from a map (h, w, c)."""
  rows, columns = _weights_of_map(y, x, image.shape, size, ratio, total.dtype)
  return total + _contract(rows, columns, image.astype(total.dtype))


def whole_gradient(
  total: jax.Array, dout: jax.Array, y: Samples, x: Samples, size: Size, ratio: int
) -> jax.Array:
  """Adds to the gradient of a map (h, w, c) what comes from that of its boxes, `dout` (n, s, r, c)."""
  rows, columns = _weights_of_map(y, x, total.shape, size, ratio, total.dtype)
  h, w, c = total.shape
  spread = _spread_columns(columns, dout)  # (n, s, w, c)
  rows = rows.reshape(-1, h)
  return total + jnp.matmul(rows.T, spread.reshape(-1, w * c), precision=PRECISION).reshape(h, w, c)


def _weights_of_map(
  y: Samples, x: Samples, shape: tuple[int, ...], size: Size, ratio: int, dtype: jnp.dtype
) -> tuple[jax.Array, jax.Array]:
  n = len(y.start)
  rows, columns = (
    weights_of(samples, jnp.broadcast_to(jnp.arange(cells)[None], (n, cells)), bins, ratio).astype(dtype)
    for samples, cells, bins in zip((y, x), shape, size, strict=False)
  )
  return rows, columns


def _contract(rows: jax.Array, columns: jax.Array, image: jax.Array) -> jax.Array:
  """rows (n, s, h), columns (n, r, w), a map (h, w, c) -> (n, s, r, c)."""
  (n, s, h), (_, r, w), c = rows.shape, columns.shape, image.shape[-1]
  bands = jnp.matmul(rows.reshape(n * s, h), image.reshape(h, w * c), precision=PRECISION)
  # Repeated for each row of bins, so that nothing large has to be transposed.
  columns = jnp.broadcast_to(columns[:, None], (n, s, r, w))
  return jnp.matmul(columns, bands.reshape(n, s, w, c), precision=PRECISION)


def _spread_columns(columns: jax.Array, dout: jax.Array) -> jax.Array:
  """columns (n, r, w), dout (n, s, r, c) -> (n, s, w, c)."""
  (n, r, w), s = columns.shape, dout.shape[1]
  columns = jnp.broadcast_to(jnp.swapaxes(columns, 1, 2)[:, None], (n, s, w, r))
  return jnp.matmul(columns, dout, precision=PRECISION)


def windows(total: jax.Array, image: jax.Array, y: Samples, x: Samples, size: Size, ratio: int) -> jax.Array:
  """As `whole`, of one box: total (1, s, r, c)."""
  c = image.shape[-1]

  def add(total: jax.Array, window: _Window) -> jax.Array:
    t, u = window.rows.shape[-1], window.columns.shape[-1]
    cells = jax.lax.dynamic_slice(image, (*window.corner, 0), (t, u, c))
    return total + _contract(window.rows, window.columns, cells.astype(total.dtype))

  return _over_windows(add, total, image.shape, y, x, size, ratio)


def windows_gradient(
  total: jax.Array, dout: jax.Array, y: Samples, x: Samples, size: Size, ratio: int
) -> jax.Array:
  """As `whole_gradient`, of one box: dout (1, s, r, c)."""
  c = total.shape[-1]

  def add(total: jax.Array, window: _Window) -> jax.Array:
    t, u = window.rows.shape[-1], window.columns.shape[-1]
    spread = _spread_columns(window.columns, dout)[0]  # (s, u, c)
    cells = jnp.matmul(window.rows[0].T, spread.reshape(-1, u * c), precision=PRECISION).reshape(t, u, c)
    corner = *window.corner, 0
    cells += jax.lax.dynamic_slice(total, corner, cells.shape)
    return jax.lax.dynamic_update_slice(total, cells, corner)

  return _over_windows(add, total, total.shape, y, x, size, ratio)


class _Window(NamedTuple):
  """Weights of the rows (1, s, t) and columns (1, r, u) of a part of a map that begins at `corner`."""

  corner: tuple[jax.Array, jax.Array]
  rows: jax.Array
  columns: jax.Array


def _over_windows(
  add: Callable[[jax.Array, _Window], jax.Array],
  total: jax.Array,
  shape: tuple[int, ...],
  y: Samples,
  x: Samples,
  size: Size,
  ratio: int,
) -> jax.Array:
  """Adds window after window until what the box touches is covered, row by row."""
  low_y, number_y = _cover(y, size[0])
  low_x, number_x = _cover(x, size[1])

  def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    i, total = state
    top, rows = _weights_of_window(y, low_y + i // number_x * WINDOW, shape[0], size[0], ratio)
    left, columns = _weights_of_window(x, low_x + i % number_x * WINDOW, shape[1], size[1], ratio)
    window = _Window((top, left), rows.astype(total.dtype), columns.astype(total.dtype))
    return i + 1, add(total, window)

  number = number_y * number_x
  return jax.lax.while_loop(lambda state: state[0] < number, step, (jnp.zeros_like(number), total))[1]


def _cover(samples: Samples, bins: int) -> tuple[jax.Array, jax.Array]:
  """The first cell that a box touches along an axis, and how many windows reach from there to the last."""
  start, length, samples_in_bin, side = (array[0] for array in samples)
  ends = start, start + bins * length
  low, high = jnp.minimum(*ends), jnp.maximum(*ends)
  first, last = jnp.clip(jnp.floor(low), 0, side - 1), jnp.clip(jnp.floor(high) + 1, 0, side - 1)
  number = jnp.where((samples_in_bin > 0) & (high >= -1) & (low <= side), (last - first) // WINDOW + 1, 0)
  return first.astype(jnp.int32), number.astype(jnp.int32)


def _weights_of_window(
  samples: Samples, begin: jax.Array, side: int, bins: int, ratio: int
) -> tuple[jax.Array, jax.Array]:
  """Where a window begins that holds the cells from `begin` on, and its weights (1, s, t)."""
  t = min(WINDOW, side)
  first = jnp.minimum(begin, side - t)  # a window that would reach beyond the map begins earlier
  cells = first + jnp.arange(t)
  weights = weights_of(samples, cells[None], bins, ratio)
  return first, jnp.where((cells >= begin)[None, None], weights, 0)
