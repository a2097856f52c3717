"""A test of a detector by hand: a few objects and detections, of every kind of mistake."""

import types

import numpy as np
from coco_sets import annotated, detected

from ctx_flax.analysis.detected import Detected
from ctx_flax.tasks.detection.average_precision import coco_metrics
from ctx_flax.tasks.detection.ground_truth import GroundTruth

HW = 100, 200
IMAGES = {1: HW, 2: HW, 3: HW}
CAT, DOG, KITE = 3, 7, 90
# In image 1 two cats, a dog and a crowd of dogs; in image 3 a kite.
OBJECTS = [
  (1, CAT, (10, 10, 20, 20)),
  (1, CAT, (60, 10, 40, 40)),
  (1, DOG, (120, 10, 40, 40)),
  (1, DOG, (0, 60, 200, 40), True),
  (3, KITE, (0, 0, 150, 100)),
]
# In the order of scores: nothing there, in the crowd, right, a duplicate, the dog, the second cat twice, the
# kite, too low.
RESULTS = [
  detected(2, KITE, (0, 0, 20, 20), 0.99, HW),
  detected(1, DOG, (20, 65, 30, 30), 0.95, HW),
  detected(1, CAT, (10, 10, 20, 20), 0.9, HW),
  detected(1, CAT, (10, 10, 20, 18), 0.8, HW),
  detected(1, CAT, (120, 10, 40, 39), 0.7, HW),
  detected(1, CAT, (60, 10, 40, 15), 0.6, HW),
  detected(1, DOG, (60, 10, 40, 14), 0.5, HW),
  detected(3, KITE, (0, 0, 150, 90), 0.4, HW),
]


class Source:
  """The test images: their names, sizes and pixels, of one gray each."""

  image_ids = np.array([1, 2, 3])
  hw = np.array([HW] * 3)
  object_counts = np.array([4, 0, 1])
  class_names = ('cat', 'dog', 'kite')
  annotation_file = 'instances.json'

  def __len__(self):
    return 3

  def name(self, index):
    return f'folder/{index + 1}.png'


def by_hand(objects=OBJECTS, results=RESULTS, unreadable=0):
  """The Detected of objects and results in three images."""
  ground_truth = GroundTruth(annotated(objects, IMAGES))
  metrics = {'detections': len(results) / 3, 'overflow': 0.0} | coco_metrics(ground_truth, results)
  return Detected(ground_truth, list(results), metrics, unreadable, {1: 0, 2: 1, 3: 2})


def options(**changes):
  """config.failures and what else of a config the numbers follow from."""
  failures = {'images': 24, 'pairs': 15, 'score': 0.5, 'overlap': 0.5, 'kind': 'mask'} | changes
  return types.SimpleNamespace(
    failures=types.SimpleNamespace(**failures), eval=types.SimpleNamespace(area='mask')
  )
