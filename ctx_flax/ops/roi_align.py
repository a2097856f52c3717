"""RoIAlign (He et al., Mask R-CNN, ICCV 2017): features of boxes, as torchvision and mmcv compute them.

Axes: h w grid of a map, c channels, n boxes, s r bins along y and x. One image; jax.vmap for more, which then
come one after the other, so that memory does not grow with their number.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.ops.boxes import checked_boxes
from ctx_flax.ops.geometry import Pair, check_shape, is_integer, pair
from ctx_flax.ops.roi_levels import WAYS, Options, Regions, align_once
from ctx_flax.ops.roi_samples import samples_of


def roi_align(
  features: jax.Array,
  boxes: jax.Array,
  *,
  size: int | Pair,
  scale: float,
  sampling_ratio: int = 0,
  valid: Any = None,
  path: str | None = None,
) -> jax.Array:
  """Divides each box into bins and averages bilinear samples of a map in each bin.

  This is the 'aligned' one: the centres of cells lie on integers, so a box begins at x1 * scale - 0.5, and
  small boxes stay small. A sample up to one cell outside of the map takes the value at the border, one
  further outside is zero. A box that is not finite gives zeros, with adaptive sampling also one without
  extent or with exchanged corners. Boxes get no gradient.

  Args:
    features: (h, w, c), floating.
    boxes: (n, 4), (x1, y1, x2, y2) in pixels.
    size: bins, an int or (rows, columns).
    scale: cells per pixel.
    sampling_ratio: samples in a bin along each axis. 0 is adaptive: for each box as many as a bin is long in
      cells, rounded up, however many these are. It is what torchvision calls -1.
    valid: (h, w) of the part of `features` that is a map of its own, the rest being padding; may be traced.
      None for all of it.
    path: None chooses by platform; 'windows' reads the part of the map that a box touches, which is fast on
      CPUs, 'separable' multiplies with the whole map, with neither gather nor scatter. Both give the same.

  Returns:
    (n, s, r, c) in the dtype of `features`; accumulated in at least float32.

  Raises:
    ValueError: a wrong shape, dtype or option, naming the argument.
  """
  check_shape('features', features, 'h w c', (None, None, None))
  side = jnp.asarray(features.shape[:2] if valid is None else valid)
  if side.shape != (2,):
    raise ValueError(f'valid has shape {side.shape}; expected (2,): height and width in cells')
  boxes = checked_boxes('boxes', boxes, 2)
  if not scale > 0:
    raise ValueError(f'scale={scale}: expected cells per pixel, more than 0')
  level = jnp.zeros(len(boxes), jnp.int32)
  return _align((features,), boxes, level, (scale,), (side,), size, sampling_ratio, path)


def box_levels(boxes: jax.Array, levels: int = 4, finest: float = 56) -> jax.Array:
  """Which map of a pyramid a box reads: floor(log2(sqrt(area) / finest)), within [0, levels).

  Each map serves sizes up to twice those of the one before; the first one those below 2 * finest pixels. As
  MMDetection, which adds 1e-6 to the quotient, so that 112 px are at level 1. Source: Lin et al., Feature
  Pyramid Networks (CVPR 2017), equation 1.

  Args:
    boxes: (n, 4).

  Returns:
    (n,) int32; 0 for boxes without area.
  """
  boxes = checked_boxes('boxes', boxes, 2)
  area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
  level = jnp.floor(jnp.log2(jnp.sqrt(jnp.maximum(area, 0)) / finest + 1e-6))
  return jnp.clip(jnp.nan_to_num(level), 0, levels - 1).astype(jnp.int32)


def pyramid_roi_align(
  maps: Sequence[jax.Array],
  boxes: jax.Array,
  *,
  strides: Sequence[int],
  size: int | Pair,
  sampling_ratio: int = 0,
  valid_hw: Any = None,
  path: str | None = None,
) -> jax.Array:
  """RoIAlign of each box on the map of a pyramid that suits its size (`box_levels`).

  Args:
    maps: features (h_l, w_l, c), the finest first.
    boxes: (n, 4), (x1, y1, x2, y2) in pixels of the image.
    strides: pixels per cell of each map.
    size, sampling_ratio, path: as of `roi_align`.
    valid_hw: (h, w) in pixels of the image with the padding that is its own, if the maps belong to a larger
      canvas; may be traced. A map's own part is that over the stride, rounded up. None for the whole canvas.

  Returns:
    (n, s, r, c) in the dtype of the maps.

  Raises:
    ValueError: a wrong shape, dtype or option, naming the argument.
  """
  if not maps or len(maps) != len(strides):
    raise ValueError(f'{len(maps)} maps and {len(strides)} strides: expected as many, at least one')
  for i, features in enumerate(maps):
    check_shape(f'maps[{i}]', features, 'h w c', (None, None, maps[0].shape[-1]))
    if features.dtype != maps[0].dtype:
      raise ValueError(f'maps[{i}] has dtype {features.dtype}; expected that of the first, {maps[0].dtype}')
  if not all(stride > 0 for stride in strides):
    raise ValueError(f'strides={tuple(strides)}: expected pixels per cell, more than 0')
  if valid_hw is None:
    sides = [jnp.asarray(features.shape[:2]) for features in maps]
  elif jnp.shape(valid_hw) != (2,):
    raise ValueError(f'valid_hw has shape {jnp.shape(valid_hw)}; expected (2,): height and width in pixels')
  else:
    sides = [-(-jnp.asarray(valid_hw) // stride) for stride in strides]
  boxes = checked_boxes('boxes', boxes, 2)
  scales = [1 / stride for stride in strides]
  return _align(tuple(maps), boxes, box_levels(boxes, len(maps)), scales, sides, size, sampling_ratio, path)


def _align(
  maps: tuple[jax.Array, ...],
  boxes: jax.Array,
  level: jax.Array,
  scales: Sequence[float],
  sides: Sequence[jax.Array],
  size: int | Pair,
  ratio: int,
  path: str | None,
) -> jax.Array:
  """RoIAlign of boxes (n, 4) in pixels, each on the map `level` (n,); scales and sides (h, w) by map."""
  if path not in (None, *WAYS):
    raise ValueError(f'path={path!r}: expected None or one of {tuple(WAYS)}')
  if not is_integer(ratio) or ratio < 0:
    raise ValueError(f'sampling_ratio={ratio!r}: expected an int, 0 for adaptive')
  s, r = pair(size, 'size')
  if not len(boxes):
    return jnp.zeros((0, s, r, maps[0].shape[-1]), maps[0].dtype)
  boxes = jax.lax.stop_gradient(boxes)
  scale = jnp.asarray(scales, boxes.dtype)[level]
  side = jnp.stack(sides).astype(boxes.dtype)[level]
  y = samples_of(boxes[:, 1], boxes[:, 3], scale, side[:, 0], s, ratio)
  x = samples_of(boxes[:, 0], boxes[:, 2], scale, side[:, 1], r, ratio)
  kinds = tuple((m.shape[0], m.shape[1], m.dtype.name) for m in maps)
  return align_once(maps, Regions(y, x, level), Options(kinds, (s, r), ratio, path)).astype(maps[0].dtype)
