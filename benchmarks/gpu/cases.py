"""Every operation with arguments: the cases whose correctness is checked.

Axes: b images, h w input grid, k taps, c channels in, d out, n boxes.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.gpu.sizes import Sizes
from ctx_flax import ops
from ctx_flax.layers.best_classes import best_classes
from ctx_flax.ops.depthwise_conv import PATHS as DEPTHWISE_PATHS
from ctx_flax.ops.mask_targets import PATHS as MASK_PATHS
from ctx_flax.ops.pointwise_conv import pointwise_conv
from ctx_flax.ops.roi_levels import WAYS as ROI_PATHS

# 'one_step_cpu' is for CPUs.
CONTEXTUAL_PATHS = None, 'one_step', 'one_step_gpu', 'two_steps'


@dataclasses.dataclass(frozen=True, eq=False)  # arrays have no hash
class Case:
  """One operation in one form.

  Attributes:
    function: of the arguments.
    arguments: NumPy arrays, the first in the compute dtype.
    gradients: of how many of the first arguments there are gradients.
    paths: values of the keyword `path`, if there are several.
    exact: whether results are the same bits everywhere: choices, and values that are only moved.
    dtypes: of the first argument; those of boxes are float32.
  """

  function: Callable[..., Any]
  arguments: tuple[np.ndarray, ...]
  gradients: int = 0
  paths: tuple[str | None, ...] = (None,)
  exact: bool = False
  dtypes: tuple[str, ...] = ('float32', 'bfloat16')

  def by(self, path: str | None) -> Callable[..., Any]:
    """The function by one of the paths."""
    return functools.partial(self.function, path=path) if len(self.paths) > 1 else self.function


def normal(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
  return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def all_cases(sizes: Sizes) -> dict[str, Case]:
  """{name: case}; every operation of ctx_flax.ops and the selection of classes."""
  return {**_convolutions(sizes), **_moves(sizes), **_regions(sizes), **_boxes(), **_choices(sizes)}


def _convolutions(sizes: Sizes) -> dict[str, Case]:
  b, h, c, d = sizes.check
  x, points = normal(0, b, h, h, c), normal(1, b, h, h, 3, 2, scale=h)
  offsets = lambda *k: normal(2, b, h, h, *k, 2, scale=2.0)
  mask = lambda *k: np.random.default_rng(3).uniform(0.1, 1, (b, h, h, *k)).astype(np.float32)
  kernel = lambda *shape: normal(4, *shape, scale=0.1)
  delta = lambda k: normal(5, b, k, k, c, scale=0.1)
  deform = functools.partial(ops.deform_conv, padding=1)
  dense = functools.partial(ops.contextual_conv, padding=1)
  depth = functools.partial(ops.contextual_depthwise_conv, padding=3)
  plain = functools.partial(ops.depthwise_conv, padding=3)
  v = -(-h // 2)  # outputs with a stride of 2
  seven = x, kernel(7, 7, 1, c), delta(7)
  return {
    'bilinear_sample': Case(ops.bilinear_sample, (x, points), 2),
    'deform_conv': Case(deform, (x, kernel(3, 3, c, d), offsets(9), mask(9)), 4),
    'deform_conv no mask, strided': Case(
      functools.partial(deform, strides=2), (x, kernel(3, 3, c, d), offsets(9)[:, :v, :v]), 3
    ),
    'deform_conv depthwise': Case(
      functools.partial(deform, groups=c), (x, kernel(3, 3, 1, c), offsets(9), mask(9)), 4
    ),
    'deform_conv per image': Case(deform, (x, kernel(b, 3, 3, c, d), offsets(9), mask(9)), 4),
    'deform_conv groups, bias': Case(
      lambda x, kernel, offsets, mask, bias: deform(x, kernel, offsets, mask, groups=2, bias=bias),
      (x, kernel(3, 3, c // 2, d), offsets(2, 9), mask(2, 9), normal(6, d)),
      5,
    ),
    'contextual_conv': Case(
      dense, (x, kernel(3, 3, c, d), delta(3), offsets(9), mask(9)), 5, CONTEXTUAL_PATHS
    ),
    'contextual_depthwise_conv': Case(depth, (*seven, offsets(49), mask(49)), 5, CONTEXTUAL_PATHS),
    'contextual_depthwise_conv zero offsets': Case(
      depth, (*seven, 0 * offsets(49), mask(49)), 5, CONTEXTUAL_PATHS
    ),
    'depthwise_conv': Case(plain, (x, kernel(7, 7, 1, c)), 2, (None, *DEPTHWISE_PATHS)),
    'depthwise_conv per image': Case(plain, (x, kernel(b, 7, 7, 1, c)), 2, (None, *DEPTHWISE_PATHS)),
    'pointwise_conv': Case(_pointwise, (x, kernel(1, 1, c, d)), 2),
    'pointwise_conv strided': Case(functools.partial(_pointwise, strides=2), (x, kernel(1, 1, c, d)), 2),
  }


def _pointwise(x: jax.Array, kernel: jax.Array, strides: int = 1) -> jax.Array:
  return pointwise_conv(x, kernel.astype(x.dtype), strides=strides)  # as layers call it


def _moves(sizes: Sizes) -> dict[str, Case]:
  b, h, c, _ = sizes.check
  return {'temporal_shift': Case(ops.temporal_shift, (normal(0, b, 4, h, h, c),), 1, exact=True)}


def _regions(sizes: Sizes) -> dict[str, Case]:
  """RoIAlign on maps of an image of 16 h pixels, and the targets of mask heads."""
  _, h, c, _ = sizes.check
  side = 16 * h
  boxes = random_boxes(7, 12, side)
  maps = tuple(normal(8 + level, 4 * h >> level, 4 * h >> level, c) for level in range(3))
  align = functools.partial(ops.roi_align, size=7, scale=1 / 16)
  rng = np.random.default_rng(9)
  masks = np.kron(rng.uniform(size=(3, side // 8, side // 8)) > 0.4, np.ones((1, 8, 8), bool))
  chosen = rng.integers(0, 3, len(boxes))

  def pyramid(finest: jax.Array, *rest: jax.Array, path: str | None) -> jax.Array:
    *others, boxes = rest
    others = [level.astype(finest.dtype) for level in others]
    return ops.pyramid_roi_align((finest, *others), boxes, strides=(4, 8, 16), size=7, path=path)

  targets = {
    name: Case(
      lambda boxes, masks, chosen, path: ops.mask_targets(masks, boxes, chosen, path=path),
      (boxes, given, chosen),
      paths=(None, *MASK_PATHS),
      exact=True,
      dtypes=('float32',),
    )
    for name, given in (('mask_targets', masks), ('mask_targets packed', np.packbits(masks, -1)))
  }
  paths = None, *ROI_PATHS
  return {
    'roi_align': Case(align, (normal(0, h, h, c), boxes), 1, paths),
    'roi_align two samples, part of the map': Case(
      functools.partial(align, sampling_ratio=2, valid=(h - 1, h - 2)), (normal(0, h, h, c), boxes), 1, paths
    ),
    'pyramid_roi_align': Case(pyramid, (*maps, boxes), 3, paths),
    **targets,
  }


def _boxes() -> dict[str, Case]:
  boxes, others = random_boxes(10, 40, 500), random_boxes(11, 40, 500)
  stds = 0.1, 0.1, 0.2, 0.2
  decode = functools.partial(ops.decode_boxes, stds=stds, hw=(480, 470))
  f32 = ('float32',)
  return {
    'box_iou': Case(ops.box_iou, (boxes, others), 2, dtypes=f32),
    'generalised_box_iou': Case(ops.generalised_box_iou, (boxes, others), 2, dtypes=f32),
    'encode_boxes': Case(functools.partial(ops.encode_boxes, stds=stds), (boxes, others), 2, dtypes=f32),
    'decode_boxes': Case(decode, (normal(12, 40, 4), boxes), 2, dtypes=f32),
    'clip_boxes': Case(lambda boxes: ops.clip_boxes(boxes, (300, 400)), (boxes,), 1, exact=True, dtypes=f32),
    'box_levels': Case(ops.box_levels, (boxes,), exact=True, dtypes=f32),
  }


def _choices(sizes: Sizes) -> dict[str, Case]:
  """What decides: the same boxes and classes have to be kept everywhere, equal scores included."""
  rng = np.random.default_rng(13)
  boxes = random_boxes(14, 300, 200)
  by_class = np.round(rng.uniform(size=(len(boxes), 5)), 2).astype(np.float32)
  scores = np.round(normal(15, sizes.check[0], sizes.classes), 2)
  scores[:, ::7] *= 0  # zeros of both signs
  suppress = functools.partial(ops.nms, threshold=0.5, limit=100)
  detect = functools.partial(ops.multiclass_nms, score_threshold=0.3, threshold=0.5, limit=60, candidates=900)
  kept = sizes.classes // 2
  f32 = ('float32',)
  return {
    'nms': Case(suppress, (boxes, by_class[:, 0]), exact=True, dtypes=f32),
    'nms groups': Case(
      lambda boxes, scores, groups, valid: suppress(boxes, scores, groups=groups, valid=valid),
      (boxes, by_class[:, 0], rng.integers(0, 3, len(boxes)), rng.uniform(size=len(boxes)) > 0.1),
      exact=True,
      dtypes=f32,
    ),
    'multiclass_nms': Case(detect, (boxes, by_class), exact=True, dtypes=f32),
    'best_classes': Case(lambda scores: best_classes(scores, kept), (scores,), exact=True),
    'best_classes traced count': Case(best_classes, (scores, np.asarray(kept)), exact=True),
  }


def random_boxes(seed: int, n: int, side: int) -> np.ndarray:
  """Boxes (n, 4) of all sizes inside of an image of side x side pixels."""
  rng = np.random.default_rng(seed)
  corner = rng.uniform(0, 0.9, (n, 2))
  size = (0.02 + rng.uniform(0, 1, (n, 2)) ** 2) * (0.98 - corner)
  return (side * np.concatenate([corner, corner + size], 1)).astype(np.float32)
