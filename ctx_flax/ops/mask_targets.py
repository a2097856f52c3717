"""What a mask head is to predict for a box: the part of an object's mask under it, by RoIAlign.

Axes: h w grid of the masks, in pixels; g objects, n boxes, s r bins along y and x. One image; jax.vmap for
more, which then come one after the other.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.ops.boxes import checked_boxes
from ctx_flax.ops.geometry import Pair, pair
from ctx_flax.ops.roi_products import PRECISION
from ctx_flax.ops.roi_samples import Samples, samples_of, weights_of

Regions = tuple[Samples, Samples, jax.Array]  # samples of boxes along y and x, and which mask is theirs
AT_ONCE = 8  # boxes; their masks in float32 take 34 MB at 800 x 1344


def mask_targets(
  masks: jax.Array, boxes: jax.Array, rows: jax.Array, *, size: int | Pair = 28, valid: Any = None
) -> jax.Array:
  """Where the mask of an object fills at least half of a bin of a box.

  RoIAlign of the mask with scale 1 and adaptive sampling, at least 0.5: as MMDetection makes targets of
  bitmaps.

  Args:
    masks: (g, h, w) bool; or uint8 (g, h, w / 8), eight pixels of a row in a byte, the first in its highest
      bit, as np.packbits(masks, -1) makes them. An eighth of the memory and of what goes to the device.
    boxes: (n, 4), (x1, y1, x2, y2) in pixels.
    rows: (n,) integers, which of the masks is a box's.
    size: bins, an int or (rows, columns).
    valid: (h, w) of the part of the masks that is the image with the padding that is its own; may be traced.
      None for all of it. It matters for boxes that end at the border.

  Returns:
    (n, s, r) float32, 0 or 1; 0 for boxes without extent.

  Raises:
    ValueError: a wrong shape or dtype, naming the argument.
  """
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
  h, w = masks.shape[1], masks.shape[2] * (1 if dtype == jnp.bool_ else 8)
  side = jnp.asarray((h, w) if valid is None else valid)
  if side.shape != (2,):
    raise ValueError(f'valid has shape {side.shape}; expected (2,): height and width in pixels')
  s, r = pair(size, 'size')
  if not n or not len(masks):
    return jnp.zeros((n, s, r), jnp.float32)
  scale, side = jnp.ones(n, boxes.dtype), jnp.broadcast_to(side[:, None], (2, n))
  y = samples_of(boxes[:, 1], boxes[:, 3], scale, side[0], s, 0)
  x = samples_of(boxes[:, 0], boxes[:, 2], scale, side[1], r, 0)

  @jax.custom_batching.sequential_vmap
  def fill(masks: jax.Array, regions: Regions) -> jax.Array:
    at_once = min(AT_ONCE, n)
    turns = jax.tree.map(lambda a: jnp.pad(a, (0, -n % at_once)).reshape(-1, at_once), regions)
    return jax.lax.map(lambda turn: _filled(masks, turn, (h, w), (s, r)), turns).reshape(-1, s, r)[:n]

  return (fill(masks, (y, x, jnp.asarray(rows))) >= 0.5).astype(jnp.float32)


def _filled(masks: jax.Array, regions: Regions, hw: Pair, size: Pair) -> jax.Array:
  """How much of each bin the masks of a few boxes fill: (n, s, r)."""
  y, x, rows = regions
  some = masks[rows]
  if some.dtype == jnp.uint8:
    bits = some[..., None] >> jnp.arange(7, -1, -1, dtype=jnp.uint8).reshape(1, 1, 1, 8) & 1
    some = bits.reshape(len(rows), *hw)
  along_y, along_x = (
    weights_of(samples, jnp.broadcast_to(jnp.arange(cells)[None], (len(rows), cells)), bins, 0)
    for samples, cells, bins in zip((y, x), hw, size, strict=True)
  )
  bands = jnp.matmul(along_y, some.astype(along_y.dtype), precision=PRECISION)
  return jnp.matmul(bands, jnp.swapaxes(along_x, 1, 2), precision=PRECISION)
