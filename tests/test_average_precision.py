"""COCO's average precision: the reference's numbers, hand values, and what is said if a thing is missing."""

import copy
import importlib.util
import math

import numpy as np
import pytest
from coco_sets import HW, IMAGES, OBJECTS, annotated, detected, golden_set

from ctx_flax.data import coco_masks
from ctx_flax.tasks.detection import average_precision
from ctx_flax.tasks.detection.average_precision import coco_metrics, precision_recall
from ctx_flax.tasks.detection.ground_truth import GroundTruth

NAMES = (
  *('ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large'),
  *('ar1', 'ar10', 'ar100', 'ar_small', 'ar_medium', 'ar_large'),
)


@pytest.fixture(scope='module')
def ground_truth():
  return GroundTruth(annotated(OBJECTS, IMAGES))


@pytest.fixture(params=average_precision.BACKENDS)
def backend(request):
  if importlib.util.find_spec(request.param) is None:
    pytest.skip(f'{request.param} is not installed')
  return request.param


@pytest.mark.parametrize(
  'kind, area, name',
  [('box', 'mask', 'bbox'), ('mask', 'box', 'segm'), ('mask', 'mask', 'segm_without_bbox')],
)
def test_numbers_of_the_reference(golden, golden_folder, backend, kind, area, name):
  """To the last digit."""
  expected = golden('coco/coco_eval')
  dataset, results = golden_set(golden_folder)
  measured = precision_recall(GroundTruth(dataset), results, kind, area, backend)
  stats = np.array(list(measured.summary().values()))
  np.testing.assert_array_equal(
    stats, np.where(expected[f'{name}.stats'] < 0, np.nan, expected[f'{name}.stats'])
  )
  assert tuple(measured.summary()) == NAMES
  if area == 'box' or kind == 'box':
    np.testing.assert_array_equal(measured.per_category(), expected[f'{name}.ap_per_class'])
    np.testing.assert_array_equal(
      measured.precision[:, ::10].astype(np.float32), expected[f'{name}.precision']
    )


def test_hand_values(ground_truth, backend):
  """One cat right at 0.9, one wrong at 0.8, the other right at 0.7: precision 1, 1/2, 2/3."""
  results = [
    detected(2, 3, (10, 10, 40, 40), 0.9, HW),
    detected(2, 3, (0, 50, 9, 9), 0.8, HW),
    detected(2, 3, (60, 5, 10, 20), 0.7, HW),
    detected(5, 7, (2, 2, 20, 20), 0.9, HW),  # in the crowd: neither right nor wrong
    detected(5, 7, (40, 10, 36, 40), 0.3, HW),
  ]
  metrics = coco_metrics(ground_truth, results, backend=backend)
  cats = (51 + 50 * 2 / 3) / 101  # recalls up to 0.5, and beyond
  assert metrics['box_ap'] == metrics['mask_ap'] == pytest.approx((cats + 1) / 2, abs=1e-12)
  assert metrics['box_ap_small'] == pytest.approx(1 / 2, abs=1e-12)  # the small cat comes second there
  assert metrics['mask_ar1'] == pytest.approx((1 / 2 + 0) / 2)  # the best dog is in the crowd
  assert math.isnan(metrics['box_ap_large'])
  assert list(metrics) == [f'{kind}_{name}' for kind in ('box', 'mask') for name in NAMES]


def test_overlaps_that_are_hits(backend):
  """Three quarters of the only object, which is large: right at the overlaps 0.5, 0.55, ..., 0.75."""
  ground_truth = GroundTruth(annotated([(1, 3, (0, 0, 100, 100))], {1: (120, 120)}))
  metrics = coco_metrics(ground_truth, [detected(1, 3, (0, 0, 100, 75), 0.9, (120, 120))], backend=backend)
  for kind in ('box', 'mask'):
    names = [f'{kind}_{name}' for name in ('ap50', 'ap75', 'ap', 'ap_large', 'ar100', 'ar1', 'ar_large')]
    np.testing.assert_allclose([metrics[name] for name in names], [1, 1, 0.6, 0.6, 0.6, 0.6, 0.6])
  less = coco_metrics(ground_truth, [detected(1, 3, (0, 0, 100, 74), 0.9)], ('box',), backend=backend)
  assert less['box_ap75'] == 0 and less['box_ap50'] == pytest.approx(1)


def test_the_order_of_results_does_not_matter(ground_truth, backend):
  rng = np.random.default_rng(0)
  results = [
    detected(image, category, (*rng.integers(0, 40, 2).tolist(), 20, 15), float(score), HW)
    for image, category, score in zip(
      rng.choice([2, 5], 30), rng.choice([3, 7], 30), rng.permutation(30) / 30, strict=True
    )
  ] + [detected(*object_[:3], 0.5, HW) for object_ in OBJECTS]
  mixed = [results[n] for n in rng.permutation(len(results))]
  np.testing.assert_equal(
    coco_metrics(ground_truth, results, backend=backend), coco_metrics(ground_truth, mixed, backend=backend)
  )


def test_no_detections_are_a_precision_of_zero(ground_truth, backend):
  """And no number where there are no objects, as in metrics.jsonl."""
  measured = precision_recall(ground_truth, [], 'mask', backend=backend)
  assert measured.summary()['ap'] == measured.summary()['ap_small'] == measured.summary()['ar100'] == 0
  assert math.isnan(measured.summary()['ap_large'])
  np.testing.assert_array_equal(measured.per_category(), [0, 0, np.nan])


def test_all_images_count_unless_told(ground_truth, backend):
  """An image without results is one whose objects are missed."""
  results = [detected(2, 3, box, 0.9, HW) for _, _, box in OBJECTS[:2]]
  assert precision_recall(ground_truth, results, 'box', backend=backend).summary()['ap'] == 0.5
  one_image = GroundTruth(annotated(OBJECTS, IMAGES), [2])
  assert precision_recall(one_image, results, 'box', backend=backend).summary()['ap'] == pytest.approx(1)


def test_sizes_go_by_masks_or_by_boxes(ground_truth, backend):
  """A false cat with a small mask in a box of medium size counts among the medium ones by its box alone."""
  results = [detected(2, 3, (10, 10, 40, 40), 0.5, HW), detected(2, 3, (0, 0, 5, 5), 0.9, HW)]
  results[1]['bbox'] = [0, 0, 50, 50]
  by_mask, by_box = (
    precision_recall(ground_truth, results, 'mask', area, backend).summary() for area in ('mask', 'box')
  )
  # The dog, also medium, is missed.
  assert by_mask['ap_medium'] == pytest.approx(1 / 2) and by_box['ap_medium'] == pytest.approx(1 / 4)
  assert by_mask['ap'] == by_box['ap']


def test_nothing_is_printed_or_changed(ground_truth, backend, capsys):
  results = [detected(*OBJECTS[0], 0.9, HW)]
  before = copy.deepcopy(results)
  coco_metrics(ground_truth, results, backend=backend)
  assert capsys.readouterr() == ('', '') and results == before
  from pycocotools import cocoeval

  assert 'print' not in vars(cocoeval)  # others hear it as before


def test_an_annotation_file_stays_as_it_is(backend):
  dataset = annotated(OBJECTS, IMAGES)
  before = copy.deepcopy(dataset)
  coco_metrics(GroundTruth(dataset), [detected(*OBJECTS[0], 0.9, HW)], backend=backend)
  assert dataset == before


def test_an_object_of_the_id_0_can_be_detected(backend):
  dataset = annotated(OBJECTS[:1], IMAGES)
  dataset['annotations'][0]['id'] = 0
  results = [detected(*OBJECTS[0], 0.9, HW)]
  assert precision_recall(GroundTruth(dataset), results, 'box', backend=backend).summary()[
    'ap'
  ] == pytest.approx(1)


def test_boxes_alone(backend):
  dataset = annotated(OBJECTS, IMAGES)
  for record in dataset['annotations']:
    del record['segmentation'], record['iscrowd'], record['area']
  boxes = GroundTruth(dataset, masks=False)
  results = [detected(*object_[:3], 0.9) for object_ in OBJECTS]
  assert coco_metrics(boxes, results, ('box',), backend=backend)['box_ap'] == pytest.approx(1)
  with pytest.raises(ValueError, match='masks cannot be evaluated: of the ground truth, the boxes alone'):
    precision_recall(boxes, [detected(*OBJECTS[0], 0.9, HW)], 'mask')


def test_masks_alone(ground_truth, backend):
  results = [detected(*object_[:3], 0.9, HW) for object_ in OBJECTS]
  expected = precision_recall(ground_truth, results, 'mask', backend=backend).summary()
  for result in results:
    del result['bbox']
  np.testing.assert_equal(
    precision_recall(ground_truth, results, 'mask', backend=backend).summary(), expected
  )
  with pytest.raises(ValueError, match=r"result 0 \(from 0\) has no 'bbox', so its box cannot be evaluated"):
    precision_recall(ground_truth, results, 'mask', 'box')


def test_unknown_names(ground_truth):
  with pytest.raises(ValueError, match="kind must be one of box, mask, but is 'bbox'"):
    precision_recall(ground_truth, [], 'bbox')
  with pytest.raises(ValueError, match="area must be one of mask, box, but is 'segm'"):
    precision_recall(ground_truth, [], 'mask', 'segm')
  with pytest.raises(ValueError, match="backend must be one of faster_coco_eval, pycocotools, but is 'coco'"):
    precision_recall(ground_truth, [], 'mask', backend='coco')


def test_a_package_that_is_missing(ground_truth, monkeypatch):
  monkeypatch.setattr(average_precision.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ImportError, match='pycocotools, which is not installed: pip install "ctx-flax'):
    precision_recall(ground_truth, [], 'box')
  monkeypatch.setattr(coco_masks, 'require_pycocotools', lambda: None)
  with pytest.raises(ImportError, match='faster_coco_eval is not installed: pip install faster-coco-eval'):
    precision_recall(ground_truth, [], 'box', backend='faster_coco_eval')
  assert precision_recall(ground_truth, [], 'box').summary()['ap'] == 0  # by pycocotools


def test_a_result_of_an_image_that_is_not_compared():
  result = {'image_id': 7, 'category_id': 1, 'score': 0.5, 'bbox': [0, 0, 4, 4]}
  with pytest.raises(ValueError, match=r'result 0 \(from 0\) is of image 7, which is not among the 2'):
    precision_recall(GroundTruth(annotated(OBJECTS, IMAGES)), [result], 'box')
