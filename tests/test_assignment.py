"""The assignment of boxes to objects against a slow loop, MMDetection's assigner and hand values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_flax.tasks.detection.assignment import BACKGROUND, IGNORED, Thresholds, assign

# The assigners of MMDetection's region proposal network, Mask R-CNN and the stages of Cascade R-CNN.
ASSIGNERS = {
  'rpn': Thresholds(0.7, 0.3, 0.3),
  'rcnn': Thresholds(0.5, 0.5, 0.5),
  'c0': Thresholds(0.5, 0.5),
  'c1': Thresholds(0.6, 0.6),
  'c2': Thresholds(0.7, 0.7),
}
run = jax.jit(assign, static_argnames='thresholds')


def iou(a, b):
  """float32, in the order of MMDetection's operations."""
  w, h = (max(np.float32(min(a[i + 2], b[i + 2]) - max(a[i], b[i])), np.float32(0)) for i in (0, 1))
  areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
  return w * h / max(areas[0] + areas[1] - w * h, np.float32(1e-6))


def reference(boxes, object_boxes, labels, thresholds, valid):
  """One box and one object after the other."""
  numbers = [number for number, label in enumerate(labels) if label >= 0]
  usable = [i for i in range(len(boxes)) if valid[i]]
  pairs = {(g, i): iou(object_boxes[g], boxes[i]) for g in numbers for i in usable}
  objects = np.full(len(boxes), IGNORED)
  for i in usable:
    largest = max((pairs[g, i] for g in numbers), default=0)
    if largest < thresholds.negative:
      objects[i] = BACKGROUND
    elif largest >= thresholds.positive:
      objects[i] = next(g for g in numbers if pairs[g, i] == largest)
  for g in numbers:
    best = max((pairs[g, i] for i in usable), default=0)
    for i in usable:
      if thresholds.best and best >= thresholds.best and pairs[g, i] == best:
        objects[i] = g
  return objects


def random_boxes(rng, count):
  """Corners on a coarse grid, so that many IoUs are equal."""
  first, size = rng.integers(0, 9, (count, 2)), rng.integers(1, 7, (count, 2))
  return np.concatenate([first, first + size], 1).astype(np.float32) * 4


@pytest.mark.parametrize('name', ['rpn', 'rcnn', 'c1'])
@pytest.mark.parametrize('places', [6, 40])  # 40 are compared in three parts
def test_equals_a_loop_over_boxes_and_objects(name, places):
  rng = np.random.default_rng(places)
  boxes, object_boxes = random_boxes(rng, 80), random_boxes(rng, places)
  labels = np.where(rng.random(places) < 0.2, -1, 1).astype(np.int32)
  object_boxes[places // 2] = object_boxes[0]  # two objects in one place, and not in one part
  boxes[:5] = object_boxes[:5]
  valid = rng.random(80) < 0.8
  expected = reference(boxes, object_boxes, labels, ASSIGNERS[name], valid)
  objects, _ = run(boxes, object_boxes, labels, ASSIGNERS[name], valid)
  np.testing.assert_array_equal(objects, expected)
  assert len(set(expected)) > 4 and {BACKGROUND, IGNORED} <= set(expected)


@pytest.mark.parametrize('name', ASSIGNERS)
@pytest.mark.parametrize('places', [7, 20])
def test_the_assigners_of_mmdetection(name, places, golden):
  arrays = golden('coco/assigner')
  boxes = arrays['anchors' if name == 'rpn' else 'proposals']
  object_boxes, labels = np.zeros((places, 4), np.float32), np.full(places, -1, np.int32)
  without, _ = run(boxes, object_boxes, labels, ASSIGNERS[name])
  np.testing.assert_array_equal(without + 1, arrays[f'{name}_empty_gt_inds'])
  object_boxes[:7], labels[:7] = arrays['gt'], arrays['labels']
  objects, largest = run(boxes, object_boxes, labels, ASSIGNERS[name])
  np.testing.assert_array_equal(objects + 1, arrays[f'{name}_gt_inds'])  # theirs are 0 for background
  np.testing.assert_allclose(largest, arrays[f'{name}_max_iou'], atol=3e-7)


def test_thresholds_by_hand():
  """IoUs of 1/2, 1/4 and 1/8 with one object: at least `positive`, in between, below `negative`."""
  boxes = jnp.array([[0, 0, 2, 1], [0, 0, 4, 1], [0, 0, 8, 1], [50, 50, 60, 60]], jnp.float32)
  one, labels = boxes[:1] / jnp.array([[2, 1, 2, 1]]), jnp.zeros(1, jnp.int32)
  assert run(boxes, one, labels, Thresholds(0.5, 0.25)).objects.tolist() == [0, IGNORED, -1, -1]
  assert run(boxes, one, labels, Thresholds(0.6, 0.6)).objects.tolist() == [-1, -1, -1, -1]
  assert run(boxes, one, labels, Thresholds(0.6, 0.1, 0.5)).objects.tolist() == [0, IGNORED, IGNORED, -1]
  # The best box of an object is nobody else's, even if it is not the object's by its IoU.
  assert run(boxes, one, labels, Thresholds(0.6, 0.1, 0.6)).objects.tolist() == [IGNORED] * 3 + [-1]


def test_the_last_of_two_objects_takes_a_box_that_is_the_best_of_both():
  """The first overlaps it more."""
  box = jnp.array([[0, 0, 10, 10]], jnp.float32)
  both = jnp.array([[0, 0, 9, 10], [0, 0, 8, 10]], jnp.float32)
  labels = jnp.zeros(2, jnp.int32)
  assert run(box, both, labels, Thresholds(0.5, 0.5)).objects.tolist() == [0]
  assert run(box, both, labels, Thresholds(0.5, 0.5, 0.5)).objects.tolist() == [1]


def test_without_places_for_objects_all_is_background():
  objects, largest = run(jnp.ones((3, 4)), jnp.zeros((0, 4)), jnp.zeros(0, jnp.int32), ASSIGNERS['rpn'])
  assert objects.tolist() == [BACKGROUND] * 3 and largest.tolist() == [0, 0, 0]


def test_memory_does_not_grow_with_the_objects():
  shapes = jnp.zeros((20_000, 4)), jnp.zeros((100, 4)), jnp.zeros(100, jnp.int32)
  compiled = jax.jit(lambda *args: assign(*args, ASSIGNERS['rpn'])).lower(*shapes).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 20_000 * 100 * 4 / 2


def test_thresholds_that_mean_nothing_are_shown():
  with pytest.raises(ValueError, match=r'positive=0\.3, negative=0\.7.*negative <= positive'):
    Thresholds(0.3, 0.7)
