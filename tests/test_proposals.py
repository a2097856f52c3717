"""Anchors and proposals: MMDetection's values, and small cases by hand."""

import functools

import jax
import numpy as np
import pytest

from ctx_flax.models.detection.anchors import base_anchors, pyramid_anchors, valid_anchors
from ctx_flax.models.detection.proposals import propose

STRIDES = 4, 8, 16, 32, 64


@functools.partial(jax.jit, static_argnames=('strides', 'pre_nms', 'limit', 'min_size'))
def run(logits, deltas, valid_hw, padded_hw=None, *, strides=STRIDES, **keywords):
  return propose(logits, deltas, strides, valid_hw=valid_hw, padded_hw=padded_hw, **keywords)


def test_anchors_of_mmdetection(golden):
  arrays = golden('coco/anchors')
  for stride in STRIDES:
    np.testing.assert_array_equal(base_anchors(stride), arrays[f'base_{stride}'])
  for case in 'ab':
    sizes = [tuple(map(int, hw)) for hw in arrays[f'sizes_{case}']]

    @jax.jit
    def run_case(padded_hw, sizes=sizes):
      anchors = pyramid_anchors(sizes, STRIDES)
      return anchors, valid_anchors(anchors, STRIDES, padded_hw=padded_hw)

    anchors, valid = run_case(arrays[f'valid_pad_shape_{case}'])
    for stride, boxes, mask in zip(STRIDES, anchors, valid, strict=True):
      boxes, name = np.reshape(boxes, (-1, 4)), f'anchors_{case}_{stride}'
      if name in arrays:
        np.testing.assert_array_equal(boxes, arrays[name])
      else:
        np.testing.assert_array_equal(boxes[:200], arrays[f'{name}_first200'])
        np.testing.assert_array_equal(boxes[-200:], arrays[f'{name}_last200'])
      np.testing.assert_array_equal(np.ravel(mask), arrays[f'valid_{case}_{stride}'])


def test_anchors_by_hand():
  """Wide, square, high, around the corner of a cell. Cells end with the padding, borders with the image."""
  (anchors,) = jax.device_get(jax.jit(lambda: pyramid_anchors([(6, 8)], [8]))())
  assert anchors.shape == (6, 8, 3, 4)
  np.testing.assert_array_equal(anchors[2, 5, 1], [40 - 32, 16 - 32, 40 + 32, 16 + 32])
  w, h = 64 * 2**0.5, 32 * 2**0.5
  np.testing.assert_allclose(anchors[0, 0, 0], [-w / 2, -h / 2, w / 2, h / 2], rtol=1e-6)
  np.testing.assert_allclose(anchors[0, 0, 2], [-h / 2, -w / 2, h / 2, w / 2], rtol=1e-6)
  sizes = {'padded_hw': np.array([33, 50]), 'valid_hw': np.array([30, 47])}
  find = jax.jit(lambda **options: valid_anchors([anchors], [8], **options), static_argnames='allowed_border')
  (inside,) = jax.device_get(find(**sizes))
  # ceil(33 / 8), ceil(50 / 8) cells
  np.testing.assert_array_equal(np.argwhere(inside[..., 0]).max(0), [4, 6])
  (inside,) = jax.device_get(find(**sizes, allowed_border=40))
  expected = [
    (i, j, a)
    for i, j, a in np.ndindex(6, 8, 3)
    if i < 5 and j < 7 and min(anchors[i, j, a, :2]) >= -40
    if anchors[i, j, a, 2] < 87 and anchors[i, j, a, 3] < 70
  ]
  np.testing.assert_array_equal(np.argwhere(inside), expected)
  assert 0 < len(expected) < 5 * 7 * 3
  with pytest.raises(ValueError, match='allowed_border=0 needs valid_hw'):
    valid_anchors([anchors], [8], allowed_border=0)


@pytest.mark.parametrize(
  'case, pre_nms, limit',
  [
    ('small', 200, 150),
    pytest.param('train', 2000, 1000, marks=pytest.mark.slow),
    pytest.param('test', 1000, 1000, marks=pytest.mark.slow),
  ],
)
def test_proposals_of_mmdetection(golden, case, pre_nms, limit):
  """It proposes in the whole canvas; sizes are those of the images. Equal scores have no order in PyTorch."""
  arrays = golden('coco/rpn')
  logits = [np.asarray(arrays[f'cls{i}'], np.float32) for i in range(5)]
  deltas = [np.asarray(arrays[f'reg{i}'], np.float32) for i in range(5)]
  deltas = [x.reshape(*x.shape[:3], 3, 4) for x in deltas]
  found = run(logits, deltas, arrays['img_hw'], pre_nms=pre_nms, limit=limit)
  boxes, scores, valid = jax.device_get(found)
  assert np.all(valid)
  for i in range(2):
    expected = arrays[f'proposals_{case}{i}']
    np.testing.assert_allclose(scores[i], expected[:, 4], rtol=0, atol=2e-7)
    found = np.c_[boxes[i], scores[i]]
    found, expected = (x[x[:, 4] > x[-1, 4] + 1e-6] for x in (found, expected))  # nor has the last one
    distances = np.abs(found[:, None] - expected[None]).max(-1)
    assert max(distances.min(0).max(), distances.min(1).max()) < 5e-4


@pytest.mark.parametrize('kind, limit', [('mask', 100), pytest.param('cascade', 40, marks=pytest.mark.slow)])
def test_boxes_without_area_are_dropped_on_request(golden, kind, limit):
  """As MMDetection 3.x does; 2.x keeps some here."""
  name = 'mask_rcnn' if kind == 'mask' else 'cascade_rcnn'
  two, three = golden(f'coco/{name}_tiny'), golden('coco/tiny_v3_filter')
  logits = [two[f'eval.rpn_cls{i}'] for i in range(5)]
  deltas = [two[f'eval.rpn_reg{i}'] for i in range(5)]
  deltas = [x.reshape(*x.shape[:3], 3, 4) for x in deltas]
  found = jax.device_get(run(logits, deltas, two['img_hw'], pre_nms=200, limit=limit, min_size=0.0))
  for i in range(2):
    expected = three[f'{kind}.proposals{i}']
    assert np.sum(found.valid[i]) == len(expected)
    np.testing.assert_allclose(np.c_[found.boxes[i], found.scores[i]], expected, rtol=0, atol=3e-4)
    assert not np.allclose(expected, two[f'eval.proposals{i}'])


def case():
  """One map of 3 x 4 cells of 8 pixels, of two images: logits, all different, and boxes as the anchors."""
  logits = np.random.default_rng(0).permutation(72).reshape(2, 3, 4, 3).astype(np.float32) / 10
  return [logits], [np.zeros((2, 3, 4, 3, 4), np.float32)]


def iou(a, b):
  w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
  overlap = max(w, 0) * max(h, 0)
  return overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap)


def reference(logits, valid_hw, padded_hw, pre_nms, limit, min_size=-1.0, threshold=0.7):
  """(boxes, scores) of one image and map of 8 pixels a cell, slowly."""
  (anchors,) = jax.device_get(jax.jit(lambda: pyramid_anchors([logits.shape[:2]], [8]))())
  cells = [
    (i, j, a) for i, j, a in np.ndindex(*logits.shape) if 8 * i < padded_hw[0] and 8 * j < padded_hw[1]
  ]
  cells = sorted(cells, key=lambda cell: -logits[cell])[:pre_nms]
  kept = []
  for cell in cells:
    box = np.clip(anchors[cell], 0, [valid_hw[1], valid_hw[0]] * 2)
    if min_size >= 0 and min(box[2:] - box[:2]) <= min_size:
      continue
    if not any(iou(box, other) > threshold for other, _ in kept):
      kept.append((box, 1 / (1 + np.exp(-logits[cell]))))
  return kept[:limit]


@pytest.mark.parametrize('min_size', [-1.0, 12.0])
def test_proposals_by_hand(min_size):
  """Clipped to the image, none from beyond its padding, and zeros where there are fewer than asked for."""
  logits, deltas = case()
  valid_hw, padded_hw = np.array([[20, 30], [23, 15]]), np.array([[24, 32], [24, 16]])
  boxes, scores, valid = jax.device_get(
    run(logits, deltas, valid_hw, padded_hw, strides=(8,), pre_nms=20, limit=15, min_size=min_size)
  )
  counts = []
  for i in range(2):
    kept = reference(np.asarray(logits[0][i]), valid_hw[i], padded_hw[i], 20, 15, min_size)
    counts.append(len(kept))
    np.testing.assert_array_equal(valid[i], np.arange(15) < len(kept))
    np.testing.assert_allclose(boxes[i, : len(kept)], [box for box, _ in kept], atol=1e-5)
    np.testing.assert_allclose(scores[i, : len(kept)], [score for _, score in kept], rtol=1e-5)
    assert not np.any(boxes[i, len(kept) :]) and not np.any(scores[i, len(kept) :])
  assert 0 < min(counts) < 15


def test_more_than_there_are_anchors():
  logits, deltas = case()
  found = jax.device_get(run(logits, deltas, np.array([[24, 32]] * 2), strides=(8,), pre_nms=1000, limit=50))
  assert found.boxes.shape == (2, 50, 4)
  assert np.all(np.diff(found.scores) <= 0) and 0 < np.sum(found.valid[0]) < 36


def test_no_gradient_passes():
  logits, deltas = case()
  total = lambda logits, deltas: run(
    logits, deltas, np.array([[24, 32]] * 2), strides=(8,), limit=5
  ).boxes.sum()
  gradients = jax.device_get(jax.jit(jax.grad(total, (0, 1)))(logits, deltas))
  assert not any(np.any(x) for x in jax.tree.leaves(gradients))
