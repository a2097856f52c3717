"""Two ways to compute RoIAlign and its gradient for a few boxes on one map.

Both multiply cells by the weights of their rows and of their columns (roi_samples.py) and add up. `whole`
does so with the whole map and all boxes at once: a large matrix product, without gathers and scatters.
`windows` does so with the part of the map that a box touches, window after window: thousands of times less
work.

Letters: n boxes, h w grid of a map, s r bins along y and x, t cells along a window, c channels.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ctx_flax.ops.roi_samples import Samples, weights_of

Size = tuple[int, int]  # bins (rows, columns)
Corner = tuple[jax.Array, jax.Array]
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
  return total + _spread(rows, columns, dout)


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


def _spread(rows: jax.Array, columns: jax.Array, dout: jax.Array) -> jax.Array:
  """rows (n, s, h), columns (n, r, w), dout (n, s, r, c) -> (h, w, c): the transpose of `_contract`."""
  (n, s, h), (_, r, w), c = rows.shape, columns.shape, dout.shape[-1]
  columns = jnp.broadcast_to(jnp.swapaxes(columns, 1, 2)[:, None], (n, s, w, r))
  bands = jnp.matmul(columns, dout, precision=PRECISION)
  rows, bands = rows.reshape(n * s, h), bands.reshape(n * s, w * c)
  return jnp.matmul(rows.T, bands, precision=PRECISION).reshape(h, w, c)


def windows(total: jax.Array, image: jax.Array, y: Samples, x: Samples, size: Size, ratio: int) -> jax.Array:
  """As `whole`, of one box: total (1, s, r, c)."""

  def add(total: jax.Array, corner: Corner, rows: jax.Array, columns: jax.Array) -> jax.Array:
    shape = rows.shape[-1], columns.shape[-1], image.shape[-1]
    cells = jax.lax.dynamic_slice(image, (*corner, 0), shape)
    return total + _contract(rows, columns, cells.astype(total.dtype))

  return _over_windows(add, total, image.shape, y, x, size, ratio)


def windows_gradient(
  total: jax.Array, dout: jax.Array, y: Samples, x: Samples, size: Size, ratio: int
) -> jax.Array:
  """As `whole_gradient`, of one box: dout (1, s, r, c)."""

  def add(total: jax.Array, corner: Corner, rows: jax.Array, columns: jax.Array) -> jax.Array:
    cells = _spread(rows, columns, dout)
    cells += jax.lax.dynamic_slice(total, (*corner, 0), cells.shape)
    return jax.lax.dynamic_update_slice(total, cells, (*corner, 0))

  return _over_windows(add, total, total.shape, y, x, size, ratio)


def _over_windows(
  add: Callable[[jax.Array, Corner, jax.Array, jax.Array], jax.Array],
  total: jax.Array,
  shape: tuple[int, ...],
  y: Samples,
  x: Samples,
  size: Size,
  ratio: int,
) -> jax.Array:
  """Adds window after window until all that the box touches is covered, row by row.

  `add` gets the total, where a window begins, and the weights of its rows (1, s, t) and columns (1, r, t).
  """
  # Both axes at once, as if they were two boxes: half as much to compile.
  axes = Samples(*(jnp.concatenate(both) for both in zip(y, x, strict=True)))
  sides = tuple(min(WINDOW, cells) for cells in shape[:2])
  last = jnp.array([cells - side for cells, side in zip(shape, sides, strict=False)])
  begin, number = _cover(axes, jnp.array(size))

  def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    i, total = state
    first = begin + WINDOW * jnp.stack([i // number[1], i % number[1]])
    corner = jnp.minimum(first, last)  # a window that would reach beyond the map begins earlier
    cells = corner[:, None] + jnp.arange(max(sides))[None]
    weights = weights_of(axes, cells, max(size), ratio).astype(total.dtype)
    weights = jnp.where((cells >= first[:, None])[:, None], weights, 0)
    rows, columns = weights[:1, : size[0], : sides[0]], weights[1:, : size[1], : sides[1]]
    return i + 1, add(total, (corner[0], corner[1]), rows, columns)

  end = number[0] * number[1]
  return jax.lax.while_loop(lambda state: state[0] < end, step, (jnp.zeros_like(end), total))[1]


def _cover(samples: Samples, bins: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The first cell that each box (n,) touches, and how many windows reach from there to the last one."""
  ends = samples.start, samples.start + bins * samples.length
  low, high = jnp.minimum(*ends), jnp.maximum(*ends)
  first, last = (jnp.clip(jnp.floor(end), 0, samples.side - 1) for end in (low, high + 1))
  touches = (samples.number > 0) & (high >= -1) & (low <= samples.side)
  number = jnp.where(touches, (last - first) // WINDOW + 1, 0)
  return first.astype(jnp.int32), number.astype(jnp.int32)
