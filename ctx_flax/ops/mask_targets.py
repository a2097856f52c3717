"""What a mask head is to predict for a box: the part of an object's mask under it, by RoIAlign.

Axes: h w grid of the masks, in pixels; g objects, n boxes, s r bins along y and x. One image; jax.vmap for
more, which then come one after the other.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctx_flax.ops.boxes import checked_boxes
from ctx_flax.ops.geometry import Pair, pair
from ctx_flax.ops.roi_products import PRECISION, Corner, over_windows
from ctx_flax.ops.roi_samples import Samples, samples_of, weights_of

Regions = tuple[Samples, Samples, jax.Array]  # samples of boxes along y and x, and which mask is theirs
PATHS = 'separable', 'windows'
AT_ONCE = 8  # boxes whose masks are multiplied whole: in float32 they take 34 MB at 800 x 1344
WINDOW = 64  # pixels along the side of a window
# The bits of a byte, the highest first. On CPUs a table is faster than shifts.
BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], -1).astype(np.float32)


def mask_targets(
  masks: jax.Array,
  boxes: jax.Array,
  rows: jax.Array,
  *,
  size: int | Pair = 28,
  valid: Any = None,
  path: str | None = None,
) -> jax.Array:
  """Where the mask of an object fills at least half of a bin of a box.

  RoIAlign of the mask with scale 1 and adaptive sampling, at least 0.5: as MMDetection makes targets of
  bitmaps.

  Args:
    masks: (g, h, w) bool; or uint8 (g, h, w / 8), eight pixels of a row in a byte, the first in its highest
      bit, as np.packbits(masks, -1) makes them. An eighth of the memory and of what goes to the device.
    boxes: (n, 4), (x1, y1, x2, y2) in pixels.
    rows: (n,) integers, which of the masks is a box's; others than 0 to g - 1 stand for the nearest.
    size: bins, an int or (rows, columns).
    valid: (h, w) of the part of the masks that is the image with the padding that is its own; may be traced.
      None for all of it. It matters for boxes that end at the border.
    path: None chooses by platform; 'windows' reads the part of the mask that a box touches, 'separable'
      multiplies with whole masks.

  Returns:
    (n, s, r) float32, 0 or 1; 0 for boxes without extent.

  Raises:
    ValueError: a wrong shape, dtype or option, naming the argument.
  """
  if path not in (None, *PATHS):
    raise ValueError(f'path={path!r}: expected None or one of {PATHS}')
  dtype = jnp.result_type(masks)
  if jnp.ndim(masks) != 3 or dtype not in (jnp.bool_, jnp.uint8):
    raise ValueError(
      f'masks has shape {jnp.shape(masks)} and dtype {dtype}; expected (g, h, w) bool, or packed bits '
      '(g, h, w / 8) uint8'
    )
  boxes = jax.lax.stop_gradient(checked_boxes('boxes', boxes, 2))
  n = len(boxes)
  if jnp.shape(rows) != (n,):
    raise ValueError(f'rows has shape {jnp.shape(rows)}; expected (n,) = ({n},), one for each box')
  side = jnp.asarray(_cells(masks) if valid is None else valid)
  if side.shape != (2,):
    raise ValueError(f'valid has shape {side.shape}; expected (2,): height and width in pixels')
  s, r = pair(size, 'size')
  if not n or not len(masks):
    return jnp.zeros((n, s, r), jnp.float32)
  scale, side = jnp.ones(n, boxes.dtype), jnp.broadcast_to(side[:, None], (2, n))
  y = samples_of(boxes[:, 1], boxes[:, 3], scale, side[0], s, 0)
  x = samples_of(boxes[:, 0], boxes[:, 2], scale, side[1], r, 0)

  fill = functools.partial(_by_platform, size=(s, r), path=path)
  return (fill(masks, (y, x, jnp.clip(rows, 0, len(masks) - 1))) >= 0.5).astype(jnp.float32)


def _by_platform(masks: jax.Array, regions: Regions, size: Pair, path: str | None) -> jax.Array:
  """How much of each bin of the boxes the masks fill: (n, s, r). Images come one after the other."""
  ways = {
    name: jax.custom_batching.sequential_vmap(functools.partial(way, size))
    for name, way in (('separable', _whole), ('windows', _windows))
  }
  if path:
    return ways[path](masks, regions)
  return jax.lax.platform_dependent(masks, regions, cpu=ways['windows'], default=ways['separable'])


def _whole(size: Pair, masks: jax.Array, regions: Regions) -> jax.Array:
  n, cells = len(regions[-1]), _cells(masks)
  at_once = min(AT_ONCE, n)

  def fill(some: Regions) -> jax.Array:
    y, x, row = some
    along_y, along_x = (
      weights_of(samples, jnp.broadcast_to(jnp.arange(side)[None], (at_once, side)), bins, 0)
      for samples, side, bins in zip((y, x), cells, size, strict=True)
    )
    return _contract(along_y, along_x, _unpacked(masks[row]))

  turns = jax.tree.map(lambda a: jnp.pad(a, (0, -n % at_once)).reshape(-1, at_once), regions)
  return jax.lax.map(fill, turns).reshape(-1, *size)[:n]


def _windows(size: Pair, masks: jax.Array, regions: Regions) -> jax.Array:
  pixels = _cells(masks)[1] // masks.shape[2]  # in an element of `masks`

  def fill(region: Regions) -> jax.Array:
    y, x, row = jax.tree.map(lambda a: a[None], region)

    def add(total: jax.Array, corner: Corner, along_y: jax.Array, along_x: jax.Array) -> jax.Array:
      shape = 1, along_y.shape[-1], along_x.shape[-1] // pixels
      cells = jax.lax.dynamic_slice(masks, (row[0], corner[0], corner[1] // pixels), shape)
      return total + _contract(along_y, along_x, _unpacked(cells))

    total = jnp.zeros((1, *size), jnp.float32)
    return over_windows(add, total, _cells(masks), y, x, size, 0, WINDOW, pixels)[0]

  return jax.lax.map(fill, regions)


def _cells(masks: jax.Array) -> Pair:
  """(h, w) of masks, packed or not."""
  return masks.shape[1], masks.shape[2] * (8 if masks.dtype == jnp.uint8 else 1)


def _unpacked(masks: jax.Array) -> jax.Array:
  """Masks (n, h, w), packed or not, as float32."""
  if masks.dtype == jnp.uint8:
    masks = jnp.asarray(BITS)[masks.astype(jnp.int32)].reshape(*masks.shape[:2], -1)
  return masks.astype(jnp.float32)


def _contract(along_y: jax.Array, along_x: jax.Array, masks: jax.Array) -> jax.Array:
  """along_y (n, s, h), along_x (n, r, w), masks (n, h, w) -> (n, s, r)."""
  bands = jnp.matmul(along_y.astype(masks.dtype), masks, precision=PRECISION)
  return jnp.matmul(bands, jnp.swapaxes(along_x.astype(masks.dtype), 1, 2), precision=PRECISION)
