"""Detections of a test as they come in: over devices, with rows that fill, images that cannot be read."""

import math
import types

import numpy as np
import pytest
from coco_sets import annotated

from ctx_flax.tasks.detection.average_precision import coco_metrics
from ctx_flax.tasks.detection.ground_truth import GroundTruth
from ctx_flax.tasks.detection.results import image_results
from ctx_flax.tasks.detection.tally import CocoTally
from ctx_flax.training import evaluation, parallel
from ctx_flax.training.feed import BadImages
from ctx_flax.training.step import make_eval_step

IDS = (40, 7, 22, 9, 31, 5, 16, 8, 77, 2)  # of the images, in the order of the source
HW = 30, 40
CATEGORIES = (3, 7, 90)
SLOTS = 4  # detections of an image


def boxes_of(index):
  """An object and its category for an image of the source."""
  return (2 + index, 3, 10 + index, 12 + index % 3), CATEGORIES[index % 3]


@pytest.fixture(scope='module')
def ground_truth():
  objects = [(image, boxes_of(i)[1], boxes_of(i)[0]) for i, image in enumerate(IDS)]
  return GroundTruth(annotated(objects, dict.fromkeys(IDS, HW)))


@pytest.fixture(scope='module')
def rows():
  """Of all images in order: the object, some pixels off, two other boxes, and a slot without detection."""
  rng = np.random.default_rng(0)
  corners = rng.integers(0, 15, (len(IDS), SLOTS, 2))
  boxes = np.concatenate([corners, corners + rng.integers(3, 15, (len(IDS), SLOTS, 2))], -1)
  labels = rng.integers(0, 3, (len(IDS), SLOTS))
  for index in range(len(IDS)):
    (x, y, w, h), category = boxes_of(index)
    boxes[index, 1] = x + index % 4, y, x + w, y + h
    labels[index, 1] = CATEGORIES.index(category)
  return {
    'index': np.arange(len(IDS), dtype=np.int32),
    'boxes': boxes.astype(np.float32),
    'scores': rng.permutation(len(IDS) * SLOTS).reshape(-1, SLOTS).astype(np.float32) / 100,
    'labels': labels.astype(np.int32),
    'valid': np.arange(SLOTS)[None].repeat(len(IDS), 0) < 3,
    'masks': rng.uniform(0.3, 1, (len(IDS), SLOTS, 28, 28)).astype(np.float32),
  }


def parts(rows, *chosen):
  return {name: value[list(chosen)] for name, value in rows.items()}


@pytest.fixture(scope='module')
def expected(ground_truth, rows):
  results = []
  for index, image in enumerate(IDS):
    detections = {name: rows[name][index] for name in rows if name != 'index'}
    results += image_results(image, HW, detections, CATEGORIES)
  metrics = coco_metrics(ground_truth, results)
  assert 0.1 < metrics['mask_ap'] < metrics['box_ap'] < 0.9  # numbers that say something
  return metrics


def test_batches_in_any_order(ground_truth, rows, expected):
  tally = CocoTally(ground_truth, np.array(IDS), CATEGORIES)
  tally.add(parts(rows, 8, 3, 4))
  tally.add(parts(rows, 0, 1, 2, 9))
  tally.add(parts(rows, 5, 6, 7))
  assert len(tally.results) == 3 * len(IDS)
  np.testing.assert_equal(tally.result({}), expected)


def test_rows_that_fill_do_not_count(ground_truth, rows, expected):
  """By their weight; and a second row of an image, which would be its duplicates."""
  tally = CocoTally(ground_truth, IDS, CATEGORIES)
  filled = parts(rows, 0, 1, 2, 3, 4, 5)
  filled |= {'weight': np.array([1, 1, 1, 1, 1, 0]), 'index': np.array([0, 1, 2, 3, 4, 9])}
  tally.add(filled)
  tally.add(parts(rows, 5, 6, 7, 8, 8, 9))
  tally.add(parts(rows, 9))
  assert len(tally.results) == 3 * len(IDS)
  np.testing.assert_equal(tally.result({}), expected)


def test_an_image_that_no_row_tells_of_has_no_detections(ground_truth, rows, expected):
  """What is annotated there is missed, as on COCO's server; it is not left out of the ground truth."""
  tally, nothing = (CocoTally(ground_truth, IDS, CATEGORIES) for _ in range(2))
  tally.add(parts(rows, *range(9)))
  nothing.add(rows | {'valid': rows['valid'] & (rows['index'] < 9)[:, None]})
  metrics = tally.result({})
  np.testing.assert_equal(metrics, nothing.result({}))
  assert metrics['box_ar100'] < expected['box_ar100']


def test_no_rows(ground_truth):
  metrics = CocoTally(ground_truth, IDS, CATEGORIES).result({})
  assert metrics['box_ap'] == metrics['mask_ap'] == 0 and math.isnan(metrics['mask_ap_large'])


def test_boxes_alone_and_sums(ground_truth, rows, expected):
  tally = CocoTally(ground_truth, IDS, CATEGORIES, kinds=('box',))
  tally.add({name: value for name, value in rows.items() if name != 'masks'})
  metrics = tally.result({'full': (np.float32(3), np.float32(10))})
  assert metrics.pop('full') == pytest.approx(0.3)
  np.testing.assert_equal(metrics, {name: v for name, v in expected.items() if name.startswith('box')})


def test_an_index_that_no_image_has(ground_truth, rows):
  tally = CocoTally(ground_truth, IDS, CATEGORIES)
  with pytest.raises(ValueError, match='a row is of image 10 of a source of 10 images'):
    tally.add(rows | {'index': rows['index'] + 1})


def test_a_whole_test_on_eight_devices(ground_truth, rows, expected):
  """Ten images in two batches of eight rows; one of them could not be read, so that another stands there."""
  said, told = [], []

  class Detector:
    """Gives back the detections that the batch brings."""

    def outputs(self, variables, batch):
      return {}, {name: value for name, value in batch.items() if name != 'weight'}

    def tally(self, weights):
      return CocoTally(ground_truth, IDS, CATEGORIES)

  def batches(source, config, process, processes):
    yield parts(rows, *range(8)) | {'weight': np.ones(8, np.float32), 'bad': np.full(8, -1)}
    # Rows of an image that cannot be read and rows that fill are copies of others.
    weight, bad = np.array([1, *[0] * 7], np.float32), np.array([-1, 9, *[-1] * 6])
    yield parts(rows, 8, 8, *[0] * 6) | {'weight': weight, 'bad': bad}

  detector = Detector()
  results = evaluation.test(
    types.SimpleNamespace(eval_batches=batches, unreadable=('is missed', 'are missed')),
    detector,
    parallel.pmap_eval_step(make_eval_step(detector)),
    {'raw': {'params': np.zeros(1, np.float32)}},
    None,
    types.SimpleNamespace(data=types.SimpleNamespace(prefetch=0)),
    BadImages(lambda index: f'image {IDS[index]}', said.append),
    tell=told.append,
  )
  tally = CocoTally(ground_truth, IDS, CATEGORIES)
  tally.add(parts(rows, *range(9)))
  np.testing.assert_equal(results, {'raw': tally.result({})})
  assert len(said) == 1 and said[0].endswith(': image 2')
  assert told == [8, 10], 'the last line of progress is one of all images'
