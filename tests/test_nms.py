"""Non-maximum suppression: exactly the greedy one, of torchvision, mmcv and MMDetection."""

import functools
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_detection

from ctx_flax.ops import multiclass_nms, nms

module = importlib.import_module('ctx_flax.ops.nms')  # the package's `nms` is the function
suppress = jax.jit(nms, static_argnames='limit')
OPTIONS = {'score_threshold': 0.05, 'threshold': 0.5, 'limit': 100}


def draw(n, objects=8, seed=0):
  """Boxes around a few objects, so that there are chains of overlaps, with scores of which many are equal."""
  random = np.random.default_rng(seed)
  corner, size = random.uniform(0, 60, (objects, 2)), random.uniform(10, 40, (objects, 2))
  of = random.integers(0, objects, n)
  corner = corner[of] + random.normal(0, 4, (n, 2))
  size = size[of] * random.uniform(0.7, 1.4, (n, 2))
  scores = np.round(random.uniform(size=n), 1)
  return np.concatenate([corner, corner + size], 1).astype(np.float32), scores.astype(np.float32)


def kept(result):
  indices, mask = (np.asarray(array) for array in result)
  assert indices.dtype == np.int32 and not indices[~mask].any()
  assert not np.any(mask[1:] & ~mask[:-1])  # none after the first that is not
  return indices[mask].tolist()


@pytest.mark.parametrize('at_once', [pytest.param(5, marks=pytest.mark.slow), 32, 2048])
def test_equals_greedy_suppression(monkeypatch, at_once):
  """Whatever the number of boxes that are compared in a turn, which depends on the platform."""
  monkeypatch.setitem(module.AT_ONCE, 'cpu', at_once)
  n = 120
  groups, valid = np.arange(n) % 3, np.arange(n) % 7 > 0
  call = jax.jit(functools.partial(nms, limit=n))
  for seed, threshold in enumerate((0.2, 0.5, 0.8)):
    boxes, scores = draw(n, seed=seed)
    scores[::11] = np.nan
    result = call(boxes, scores, threshold=threshold, groups=groups, valid=valid)
    assert kept(result) == reference_detection.nms(boxes, scores, threshold, groups, valid)
    if at_once == 32:
      plain = suppress(boxes, scores, threshold=threshold, limit=n)
      assert kept(plain) == reference_detection.nms(boxes, scores, threshold)


def test_limit():
  boxes, scores = draw(120)
  everything = reference_detection.nms(boxes, scores, 0.5)
  assert len(everything) > 20
  for limit in (1, 20, 200):
    indices, mask = suppress(boxes, scores, threshold=0.5, limit=limit)
    assert indices.shape == mask.shape == (limit,)
    assert kept((indices, mask)) == everything[:limit]


def test_images_at_once():
  cases = [draw(120, seed=seed) for seed in range(3)]
  boxes, scores = (np.stack(arrays) for arrays in zip(*cases, strict=True))
  together = jax.jit(jax.vmap(functools.partial(nms, threshold=0.5, limit=50)))(boxes, scores)
  for i, case in enumerate(cases):
    assert kept(array[i] for array in together) == reference_detection.nms(*case, 0.5)[:50]


def test_a_suppressed_box_suppresses_nothing():
  # Each box overlaps its neighbours alone, by 2 / 3.
  left = 2 * np.arange(40)
  boxes = np.stack([left, left * 0, left + 10, left * 0 + 10], 1).astype(np.float32)
  scores = np.linspace(1, 0, 40, dtype=np.float32)
  assert kept(suppress(boxes, scores, threshold=0.5, limit=40)) == list(range(0, 40, 2))
  assert kept(suppress(boxes, scores[::-1], threshold=0.5, limit=40)) == list(range(39, 0, -2))


# boxes, scores, threshold, options, what is kept
EDGES = {
  'equal scores': ([(0, 0, 4, 4)] * 3 + [(9, 9, 12, 12)], [0.5, 0.7, 0.7, 0.7], 0.5, {}, [1, 3]),
  'exactly the threshold': ([(0, 0, 10, 10), (0, 0, 10, 5)], [0.9, 0.8], 0.5, {}, [0, 1]),
  'a little more': ([(0, 0, 10, 10), (0, 0, 10, 5.001)], [0.9, 0.8], 0.5, {}, [0]),
  'exactly three tenths': ([(0, 0, 10, 10), (0, 0, 10, 3)], [0.9, 0.8], 0.3, {}, [0, 1]),
  'without area': ([(3, 3, 3, 3)] * 2 + [(0, 0, 9, 9)], [0.9, 0.8, 0.7], 0.1, {}, [0, 1, 2]),
  'NaN': ([(0, 0, 4, 4)] * 3, [np.nan, 0.1, np.nan], 0.5, {}, [1]),
  'NaN alone': ([(0, 0, 4, 4)] * 2, [np.nan, np.nan], 0.5, {}, []),
  'infinite scores': (
    [(0, 0, 4, 4), (9, 9, 12, 12), (20, 20, 22, 22)],
    [-np.inf, np.nan, np.inf],
    0.5,
    {},
    [2, 0],
  ),
  'groups': ([(0, 0, 4, 4)] * 4, [0.1, 0.2, 0.3, 0.4], 0.5, {'groups': [5, -5, 5, 5]}, [3, 1]),
  'not valid': ([(0, 0, 4, 4)] * 3, [0.3, 0.2, 0.1], 0.5, {'valid': [False, True, True]}, [1]),
  'none valid': ([(0, 0, 4, 4)] * 3, [0.3, 0.2, 0.1], 0.5, {'valid': [False] * 3}, []),
  'one': ([(0, 0, 4, 4)], [0.3], 0.5, {}, [0]),
}


@pytest.mark.parametrize('name', EDGES)
def test_edges(name):
  boxes, scores, threshold, options, expected = EDGES[name]
  # Filled up to one shape, which is compiled once.
  n = len(scores)
  fill = lambda values, of, dtype: np.concatenate([np.asarray(values, dtype), np.full(6 - n, of, dtype)])
  boxes = np.concatenate([np.asarray(boxes, np.float32), np.full((6 - n, 4), 50, np.float32)])
  groups = fill(options.get('groups', [0] * n), 0, np.int32)
  valid = fill(options.get('valid', [True] * n), False, bool)
  scores = fill(scores, 0.99, np.float32)
  result = suppress(boxes, scores, threshold=threshold, limit=6, groups=groups, valid=valid)
  assert kept(result) == expected


def test_released_nms(golden):
  arrays = golden('coco/nms')
  boxes, scores = arrays['boxes'], arrays['scores']
  for percent in (30, 50, 70):
    for name, groups in (('nms', None), ('batched', arrays['labels']), ('mmcv', arrays['labels'])):
      result = suppress(boxes, scores, threshold=percent / 100, limit=len(boxes), groups=groups)
      assert kept(result) == arrays[f'{name}_{percent}_keep'].tolist(), (name, percent)
  for percent in (50, 70):
    result = suppress(arrays['edge_boxes'], arrays['edge_scores'], threshold=percent / 100, limit=4)
    assert kept(result) == arrays[f'edge_keep{percent}'].tolist()


compiled_multiclass = jax.jit(multiclass_nms, static_argnames=('limit', 'candidates'))


def multiclass(*arrays, **options):
  return jax.device_get(compiled_multiclass(*arrays, **{**OPTIONS, **options}))


@pytest.mark.parametrize('name', ['mc', 'mcs'])
def test_released_detections(golden, name):
  """With a box for each class, and with boxes that classes share."""
  arrays = golden('coco/nms')
  detections = multiclass(arrays[f'{name}_boxes'], arrays['mc_scores'][:, :-1])
  np.testing.assert_array_equal(detections.boxes, arrays[f'{name}_dets'][:, :4])
  np.testing.assert_array_equal(detections.scores, arrays[f'{name}_dets'][:, 4])
  np.testing.assert_array_equal(detections.labels, arrays[f'{name}_labels'])
  assert detections.kept.all() and not detections.overflow


@pytest.mark.parametrize('shared', [pytest.param(True, marks=pytest.mark.slow), False])
def test_detections_equal_reference(shared):
  boxes, _ = draw(40)
  boxes = boxes if shared else np.stack([boxes, boxes[::-1], boxes + 3], 1)
  scores = np.random.default_rng(1).uniform(-0.2, 1, (40, 3)).astype(np.float32)
  detections = multiclass(boxes, scores, limit=90)
  expected = reference_detection.multiclass_nms(boxes, scores, 0.05, 0.5, 90)
  n = len(expected)
  assert 20 < n < 90 and detections.kept.tolist() == [True] * n + [False] * (90 - n)
  rows, labels = np.array(expected).T
  np.testing.assert_array_equal(detections.rows[:n], rows)
  np.testing.assert_array_equal(detections.labels[:n], labels)
  np.testing.assert_array_equal(detections.scores[:n], scores[rows, labels])
  np.testing.assert_array_equal(detections.boxes[:n], boxes[rows] if shared else boxes[rows, labels])
  assert not any(np.asarray(array)[n:].any() for array in detections[:5])
  # Limited, they are the first of these.
  first = multiclass(boxes, scores, limit=7)
  np.testing.assert_array_equal(first.boxes, detections.boxes[:7])


def test_one_box_becomes_two_detections_of_classes_above_the_threshold():
  boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 9.5], [30, 30, 40, 40]], np.float32)
  # Exactly at the threshold is not above it; NaN is not either.
  scores = np.array([[0.25, 0.5, 0.75], [0.1, 0.6, 0.7], [np.nan, 0.0, 0.3]], np.float32)
  options = {'score_threshold': 0.25, 'limit': 6}
  detections = multiclass(boxes, scores, **options, valid=np.ones(3, bool))
  assert detections.rows.tolist() == [0, 1, 2, 0, 0, 0] and detections.labels.tolist() == [2, 1, 2, 0, 0, 0]
  assert detections.kept.tolist() == [True] * 3 + [False] * 3
  left_out = multiclass(boxes, scores, **options, valid=np.array([False, True, True]))
  assert left_out.rows[:3].tolist() == [1, 1, 2] and left_out.labels[:3].tolist() == [2, 1, 2]


def test_overflow_is_told():
  """Not if the candidates are just as many as places, nor if enough are kept anyway."""
  boxes = np.array([[0, 0, 9, 9]] * 5 + [[30, 30, 40, 40]], np.float32)
  scores = np.linspace(0.9, 0.4, 6, dtype=np.float32)[:, None]
  too_few, enough = (multiclass(boxes, scores, limit=3, candidates=number) for number in (5, 6))
  assert too_few.overflow and too_few.rows.tolist() == [0, 0, 0]
  assert not enough.overflow and enough.rows.tolist() == [0, 5, 0]
  assert not multiclass(boxes, scores, limit=1, candidates=4).overflow


def test_no_gradient_passes():
  boxes, _ = draw(40)
  scores = np.random.default_rng(1).uniform(size=(40, 3)).astype(np.float32)

  def total(boxes, scores):
    detections = multiclass_nms(boxes, scores, **OPTIONS)
    return jnp.sum(detections.boxes) + jnp.sum(detections.scores)

  gradients = jax.jit(jax.grad(total, (0, 1)))(boxes, scores)
  assert not any(gradient.any() for gradient in gradients)


BOXES, SCORES = np.zeros((3, 4), np.float32), np.zeros((3, 2), np.float32)
one_class = functools.partial(nms, threshold=0.5, limit=3)
REFUSED = {
  'boxes': (lambda: one_class(BOXES[:, :3], SCORES[:, 0]), 'boxes has shape (3, 3); expected (n, 4)'),
  'scores': (lambda: one_class(BOXES, SCORES), 'scores has shape (3, 2); expected (n,) = (3,)'),
  'groups': (
    lambda: one_class(BOXES, SCORES[:, 0], groups=np.zeros(2, int)),
    'groups has shape (2,); expected (n,) = (3,)',
  ),
  'limit': (lambda: one_class(BOXES, SCORES[:, 0], limit=0), 'limit=0: expected at least 1'),
  'scores of one class': (
    lambda: multiclass_nms(BOXES, SCORES[:, 0], **OPTIONS),
    'scores has shape (3,); expected (n, m)',
  ),
  'boxes of other classes': (
    lambda: multiclass_nms(np.zeros((3, 5, 4), np.float32), SCORES, **OPTIONS),
    'boxes has shape (3, 5, 4); expected (3, 4) or (3, 2, 4) with scores (3, 2)',
  ),
  'candidates': (
    lambda: multiclass_nms(BOXES, SCORES, **OPTIONS, candidates=0),
    'candidates=0: expected at least 1',
  ),
  'valid': (
    lambda: multiclass_nms(BOXES, SCORES, **OPTIONS, valid=np.ones((3, 2), bool)),
    'valid has shape (3, 2); expected (n,) = (3,)',
  ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_wrong_input_is_named(name):
  call, message = REFUSED[name]
  with pytest.raises(ValueError, match=re.escape(message)):
    call()
