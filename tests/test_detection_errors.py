"""What a detector gets wrong: matching as COCO's evaluation does it, and hand-made cases of every error."""

import numpy as np
import pytest
from coco_sets import annotated, detected, golden_set
from detected_sets import CAT, DOG, IMAGES, KITE, OBJECTS
from detected_sets import RESULTS as BY_SCORE

from ctx_flax.tasks.detection import errors, matching
from ctx_flax.tasks.detection.average_precision import precision_recall
from ctx_flax.tasks.detection.errors import confused_pairs, confusions, curve, false_positives, interpolated
from ctx_flax.tasks.detection.ground_truth import GroundTruth
from ctx_flax.tasks.detection.matching import box_overlaps, match, measure_overlaps

# Not in the order of scores, which is for the code to find. Numbers of objects: 0 and 1 cats, 2 a dog, 3 a
# crowd of dogs; in image 3: 4 a large kite.
RESULTS = [BY_SCORE[i] for i in (2, 3, 4, 5, 6, 1, 0, 7)]


@pytest.fixture(scope='module')
def ground_truth():
  return GroundTruth(annotated(OBJECTS, IMAGES))


@pytest.fixture(scope='module', params=['box', 'mask'])
def overlaps(request, ground_truth):
  return measure_overlaps(ground_truth, RESULTS, request.param)


def results_of(overlaps, rows):
  return overlaps.result[rows].tolist()


@pytest.mark.parametrize('kind', ['box', 'mask'])
def test_precision_at_every_recall_is_cocos(golden_folder, kind):
  """On the made-up set with crowds and equal scores, at three thresholds, for every category."""
  dataset, results = golden_set(golden_folder)
  ground_truth = GroundTruth(dataset)
  official = precision_recall(ground_truth, results, kind).precision[..., 0, -1]
  overlaps = measure_overlaps(ground_truth, results, kind)
  for t in (0, 3, 8):
    matches = match(overlaps, 0.5 + 0.05 * t)
    own = np.stack([interpolated(curve(overlaps, matches, n)) for n in range(4)], 1)
    np.testing.assert_allclose(own, np.where(official[t] < 0, np.nan, official[t]), rtol=0, atol=1e-12)


def test_precision_at_every_recall_is_cocos_on_random_boxes():
  """The same without the authors' values: many boxes over each other, crowds, scores that are equal."""
  rng = np.random.default_rng(0)
  draw = lambda: (*rng.integers(0, 40, 2).tolist(), *rng.integers(5, 40, 2).tolist())
  objects = [
    (int(rng.choice([1, 2])), int(rng.choice([CAT, DOG])), draw(), rng.random() < 0.2) for _ in range(40)
  ]
  results = [
    detected(int(rng.choice([1, 2, 3])), int(rng.choice([CAT, DOG, KITE])), draw(), round(rng.random(), 1))
    for _ in range(150)
  ] + [detected(*object_[:3], 0.5) for object_ in objects[:20]]
  ground_truth = GroundTruth(annotated(objects, IMAGES))
  official = precision_recall(ground_truth, results, 'box').precision[0, ..., 0, -1]
  overlaps = measure_overlaps(ground_truth, results, 'box')
  matches = match(overlaps)
  own = np.stack([interpolated(curve(overlaps, matches, n)) for n in range(3)], 1)
  np.testing.assert_allclose(own, np.where(official < 0, np.nan, official), rtol=0, atol=1e-12)
  assert 0.1 < np.nanmean(own) < 0.9 and matches.ignored.any()


def test_overlaps_of_boxes_are_pycocotools():
  from pycocotools import mask as coco_mask

  rng = np.random.default_rng(0)
  a, b = np.concatenate([rng.uniform(-5, 20, (2, 30, 2)), rng.uniform(0, 20, (2, 30, 2))], -1)
  a[0], b[0], a[1] = (0, 0, 5, 5), (5, 0, 5, 5), (3, 3, 0, 0)  # they touch; without area
  crowd = rng.random(30) < 0.3
  np.testing.assert_allclose(
    box_overlaps(a, b, crowd), coco_mask.iou(a, b, crowd.tolist()), rtol=1e-12, atol=1e-15
  )
  assert box_overlaps(a[:1], b[:1], crowd[:1]) == 0


def test_detections_and_their_objects(overlaps):
  matches = match(overlaps)
  pairs = {results_of(overlaps, [d])[0]: int(o) for d, o in enumerate(matches.object) if o >= 0}
  assert pairs == {0: 0, 7: 4}
  assert results_of(overlaps, matches.ignored) == [5]
  assert matches.detection.tolist() == [overlaps.result.tolist().index(0), -1, -1, -1, len(RESULTS) - 1]


def test_the_best_of_two_objects_and_the_better_of_two_detections():
  """By score first, then by overlap; the last of objects that overlap equally, as in COCO's evaluation."""
  objects = [(1, CAT, (0, 0, 10, 10)), (1, CAT, (2, 0, 10, 10)), (1, CAT, (2, 0, 10, 10))]
  results = [detected(1, CAT, (1, 0, 10, 10), 0.3), detected(1, CAT, (2, 0, 10, 10), 0.9)]
  overlaps = measure_overlaps(GroundTruth(annotated(objects, IMAGES)), results, 'box')
  assert overlaps.result.tolist() == [1, 0]
  assert match(overlaps).object.tolist() == [2, 1]
  assert match(overlaps, 0.95).object.tolist() == [2, -1]


def test_the_threshold_itself_is_a_hit():
  objects = [(1, CAT, (0, 0, 10, 10))]
  overlaps = measure_overlaps(
    GroundTruth(annotated(objects, IMAGES)), [detected(1, CAT, (0, 0, 10, 5), 0.9)], 'box'
  )
  assert match(overlaps, 0.5).object.tolist() == [0]
  assert match(overlaps, 0.500001).object.tolist() == [-1]


def test_a_hundred_detections_of_an_image_and_category_count(monkeypatch):
  monkeypatch.setattr(matching, 'MOST', 2)
  objects = [(1, CAT, (50, 50, 10, 10)), (1, DOG, (80, 50, 10, 10))]
  results = [detected(1, CAT, (0, 0, 5, 5), score) for score in (0.9, 0.8)]
  results += [detected(1, CAT, (50, 50, 10, 10), 0.7), detected(1, DOG, (80, 50, 10, 10), 0.6)]
  overlaps = measure_overlaps(GroundTruth(annotated(objects, IMAGES)), results, 'box')
  matches = match(overlaps)
  assert matches.object.tolist() == [-1, -1, -1, 1] and matches.ignored.tolist() == [
    False,
    False,
    True,
    False,
  ]
  assert match(overlaps, by_category=False).ignored.tolist() == [False, False, True, True]


def test_a_curve_by_hand(overlaps):
  """Cats: right, a duplicate, a dog, too small."""
  matches = match(overlaps)
  cats = curve(overlaps, matches, 0)
  assert cats.score.tolist() == [0.9, 0.8, 0.7, 0.6] and cats.objects == 2
  np.testing.assert_allclose(cats.precision, [1, 1 / 2, 1 / 3, 1 / 4])
  np.testing.assert_allclose(cats.recall, [1 / 2] * 4)
  assert interpolated(cats).tolist() == [1] * 51 + [0] * 50
  dogs = curve(overlaps, matches, 1)  # what lies in the crowd does not count
  assert dogs.score.tolist() == [0.5] and dogs.objects == 1 and not interpolated(dogs).any()


def test_curves_without_objects_or_detections():
  overlaps = measure_overlaps(GroundTruth(annotated([OBJECTS[0]], IMAGES)), [RESULTS[6]], 'box')
  matches = match(overlaps)
  assert np.isnan(interpolated(curve(overlaps, matches, 2))).all()
  assert not interpolated(curve(overlaps, matches, 0)).any()


def test_every_error_has_its_name(overlaps):
  matches = match(overlaps)
  wrong = false_positives(overlaps, matches, 10)
  assert results_of(overlaps, wrong) == [6, 1, 2, 3, 4]
  said = [errors.nearest_object(overlaps, d) for d in wrong]
  assert [name for name, _, _ in said] == [
    *('background', 'duplicate', 'class', 'location', 'class and location'),
  ]
  assert [o for _, o, _ in said] == [-1, 0, 2, 1, 1]
  np.testing.assert_allclose([iou for *_, iou in said], [0, 0.9, 0.975, 0.375, 0.35])
  assert {name for name, _, _ in said} == set(errors.ERRORS)
  assert results_of(overlaps, false_positives(overlaps, matches, 2)) == [6, 1]


def test_equal_scores_stay_in_order():
  results = [detected(2, CAT, (n, 0, 5, 5), 0.5) for n in range(4)]
  overlaps = measure_overlaps(GroundTruth(annotated(OBJECTS, IMAGES)), results, 'box')
  assert results_of(overlaps, false_positives(overlaps, match(overlaps), 3)) == [0, 1, 2]


def test_confusions(overlaps):
  """The dog is taken for a cat, the second cat is missed, the crowd does not count."""
  matches = match(overlaps, by_category=False)
  table = confusions(overlaps, matches, 3, score=0.3)
  assert table.tolist() == [[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0], [2, 1, 1, 0]]
  assert confused_pairs(table, 5) == [{'true': 1, 'predicted': 0, 'objects': 1, 'share': 1.0}]
  higher = confusions(overlaps, matches, 3, score=0.75)
  assert higher.tolist() == [[1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [1, 0, 1, 0]]
  assert confused_pairs(higher, 5) == []


def test_confused_pairs_are_in_order():
  table = np.array([[5, 3, 1, 1], [1, 2, 3, 0], [0, 0, 9, 7], [8, 8, 8, 0]])
  pairs = confused_pairs(table, 3)
  assert [(p['true'], p['predicted'], p['objects']) for p in pairs] == [(0, 1, 3), (1, 2, 3), (0, 2, 1)]
  assert pairs[0]['share'] == 0.3 and pairs[1]['share'] == 0.5


def test_missed_objects(overlaps):
  matches = match(overlaps)
  assert errors.missed(overlaps, matches).tolist() == [1, 2]
  assert errors.missed(overlaps, matches, 0.5).tolist() == [4, 1, 2]  # the largest first
  assert errors.missed_by_size(overlaps, matches, 0.5) == {
    'small': {'objects': 1, 'missed': 0},
    'medium': {'objects': 2, 'missed': 2},
    'large': {'objects': 1, 'missed': 1},
  }


def test_sizes_have_borders():
  objects = [
    (1, CAT, (0, 0, 32, 32)),
    (1, CAT, (0, 0, 31, 33)),
    (1, CAT, (0, 0, 96, 96)),
    (1, CAT, (0, 0, 95, 97)),
  ]
  overlaps = measure_overlaps(GroundTruth(annotated(objects, IMAGES)), [], 'box')
  sizes = errors.missed_by_size(overlaps, match(overlaps))
  assert [size['missed'] for size in sizes.values()] == [1, 2, 1]


def test_no_results_and_no_objects():
  for objects, results in ((OBJECTS, []), ([], RESULTS), ([], [])):
    overlaps = measure_overlaps(GroundTruth(annotated(objects, IMAGES)), results, 'mask')
    matches = match(overlaps)
    assert len(false_positives(overlaps, matches, 99)) == len(results)
    assert len(errors.missed(overlaps, matches)) == sum(len(object_) == 3 for object_ in objects)
    assert confusions(overlaps, match(overlaps, by_category=False), 3).sum() <= 8
