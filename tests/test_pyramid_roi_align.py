"""RoIAlign on a pyramid: which map a box reads, and the numbers of torchvision and MMDetection."""

import functools

import jax
import numpy as np
import pytest
import reference_detection
from op_cases import assert_close
from roi_cases import compiled, draw, paths

from ctx_flax.ops import box_levels, pyramid_roi_align

INF, NAN = float('inf'), float('nan')


def test_levels_by_hand():
  sides = np.array([0, 1, 111.9, 112, 223.9, 224, 447.9, 448, 2000, INF], np.float32)
  boxes = np.stack([np.zeros_like(sides)] * 2 + [sides] * 2, 1)
  levels = jax.jit(box_levels, static_argnames='levels')
  assert levels(boxes).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
  assert levels(boxes, levels=2, finest=14).tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
  # By the area, whatever the shape. Boxes without or with negative area, and NaN, read the finest map.
  odd = [(0, 0, 1344, 9), (0, 0, 1344, 10), (5, 5, 5, 50), (9, 5, 5, 900), (NAN, 0, 5, 5)]
  assert levels(np.array(odd, np.float32)).tolist() == [0, 1, 0, 0, 0]


STRIDES, CANVAS = (4, 8, 16), (320, 176)
PYRAMID_BOXES = np.array(
  [(1, 2, 30, 28), (0, 0, 176, 320), (3, 3, 20, 40), (-5, 40, 170, 320), (20, 9, 144, 120), (0, 0, 100, 190)],
  np.float32,
)
LEVELS = np.array([0, 2, 0, 1, 1, 1])


def pyramid():
  return [draw(CANVAS[0] // stride, CANVAS[1] // stride, 2, seed=stride) for stride in STRIDES]


@paths
def test_each_box_reads_its_level(path):
  assert jax.jit(box_levels)(PYRAMID_BOXES).tolist() == LEVELS.tolist()
  cotangent = draw(6, 3, 3, 2)
  call = compiled(pyramid_roi_align, strides=STRIDES, size=3, path=path)
  value, gradients, _ = call(pyramid(), PYRAMID_BOXES, cotangent)
  for level, (features, gradient) in enumerate(zip(pyramid(), gradients, strict=True)):
    own, scale = level == LEVELS, 1 / STRIDES[level]
    boxes, hw = PYRAMID_BOXES[own], features.shape[:2]
    np.testing.assert_allclose(
      value[own], reference_detection.roi_align(features, boxes, (3, 3), scale), atol=2e-6
    )
    expected = reference_detection.roi_align_gradient(cotangent[own], boxes, hw, (3, 3), scale)
    assert_close(gradient, expected, 2e-6)


def test_a_pyramid_on_a_larger_canvas():
  """Two images of other sizes than their canvas, at once: as if each had its own maps."""
  sizes = np.array([(224, 128), (256, 176)])
  call = functools.partial(pyramid_roi_align, strides=STRIDES, size=3)
  batched = jax.jit(
    jax.vmap(lambda maps, valid_hw: call(maps, PYRAMID_BOXES, valid_hw=valid_hw), in_axes=(None, 0))
  )(pyramid(), sizes)
  for value, (h, w) in zip(batched, sizes, strict=True):
    for box, level, ours in zip(PYRAMID_BOXES, LEVELS, value, strict=True):
      stride = STRIDES[level]
      own = pyramid()[level][: h // stride, : w // stride]
      expected = reference_detection.roi_align(own, box[None], (3, 3), 1 / stride)[0]
      np.testing.assert_allclose(ours, expected, atol=2e-6)


@pytest.mark.parametrize('path', ['windows', pytest.param('separable', marks=pytest.mark.slow)])
def test_released_roi_extractor(golden, path):
  arrays = golden('coco/roi_extractor')
  np.testing.assert_array_equal(jax.jit(box_levels)(arrays['boxes']), arrays['levels'])
  maps = [arrays[f'feat{i}'][0].astype(np.float32) for i in range(4)]
  call = jax.jit(functools.partial(pyramid_roi_align, strides=arrays['strides'].tolist(), size=7, path=path))
  # At 200 cells a position has an error of 1e-5: torchvision's own result is 2.6e-5 from that of exact
  # numbers.
  np.testing.assert_allclose(call(maps, arrays['boxes']), arrays['out'], atol=4e-5)
