"""The numbers of a detector's failures: of detections by hand, with known answers."""

import json

import numpy as np
import pytest
from detected_sets import OBJECTS, RESULTS, Source, by_hand, options

from ctx_flax.analysis import records
from ctx_flax.analysis.detector_mistakes import false_table, missed_table, mistakes, numbers


@pytest.fixture(params=['box', 'mask'])
def config(request):
  return options(kind=request.param)


def test_false_detections_have_reasons(config):
  """The gallery's are not limited by score, the counts are."""
  found = mistakes(by_hand(), config.failures)
  table = false_table(found, Source(), 24)
  assert table['detected'] == ['kite', 'cat', 'cat', 'cat', 'dog']
  assert table['error'] == ['background', 'duplicate', 'class', 'location', 'class and location']
  assert table['object'] == ['-', 'cat', 'dog', 'cat', 'cat']
  assert table['score'] == [0.99, 0.8, 0.7, 0.6, 0.5]
  np.testing.assert_allclose(table['overlap'], [0, 0.9, 0.975, 0.375, 0.35])
  assert table['index'] == [1, 0, 0, 0, 0] and table['image'][0] == 'folder/2.png'
  assert [table[side][2] for side in ('x', 'y', 'width', 'height')] == [120, 10, 40, 39]
  # One of them has just this score.
  values = numbers(found, options(kind=config.failures.kind, score=0.7))
  assert values['false_detections'] == {
    'detections': 5,
    'false': 3,
    'by_error': {'duplicate': 1, 'class': 1, 'location': 0, 'class and location': 0, 'background': 1},
  }
  assert false_table(found, Source(), 2)['detected'] == ['kite', 'cat']


def test_missed_objects_and_how_close_it_was(config):
  """The kite was detected with 40 %, which is too little; the largest comes first."""
  found = mistakes(by_hand(), config.failures)
  table = missed_table(found, Source(), 24)
  assert table['object'] == ['kite', 'cat', 'dog'] and table['best_score'] == [0.4, 0, 0]
  assert table['index'] == [2, 0, 0] and table['area'] == [15000, 1600, 1600]
  missed = numbers(found, config)['missed']
  assert (missed['objects'], missed['missed']) == (4, 3)
  assert missed['by_size']['large'] == {'objects': 1, 'missed': 1}
  assert missed_table(found, Source(), 1)['object'] == ['kite']
  lower = options(kind=config.failures.kind, score=0.3)
  assert numbers(mistakes(by_hand(), lower.failures), lower)['missed']['missed'] == 2


def test_confusions(config):
  values = numbers(mistakes(by_hand(), config.failures), config)
  assert values['confusions'] == [{'true': 'dog', 'predicted': 'cat', 'objects': 1, 'share': 1.0}]
  assert np.array(values['confusion_table']).tolist() == [
    [1, 0, 0, 1],
    [1, 0, 0, 0],
    [0, 0, 0, 1],
    [2, 1, 1, 0],
  ]


def test_classes(config):
  """Their mean is the average precision of the whole test."""
  detected = by_hand()
  classes = numbers(mistakes(detected, config.failures), config)['classes']
  assert [one['class'] for one in classes] == ['cat', 'dog', 'kite']
  assert [one['objects'] for one in classes] == [2, 1, 1]
  assert [one['missed'] for one in classes] == [1, 1, 1]
  assert [one['false'] for one in classes] == [3, 1, 1]
  kind = config.failures.kind
  mean = lambda name: np.mean([one[name] for one in classes])
  assert mean('ap') == pytest.approx(detected.metrics[f'{kind}_ap'])
  assert mean('ap_at_overlap') == pytest.approx(detected.metrics[f'{kind}_ap50'])
  assert classes[0]['precision'] == [1.0] * 51 + [0.0] * 50


def test_a_higher_overlap_makes_more_mistakes():
  values = {
    overlap: numbers(mistakes(by_hand(), config.failures), config)
    for overlap, config in ((o, options(overlap=o, score=0.3)) for o in (0.5, 0.95))
  }
  assert [values[o]['missed']['missed'] for o in (0.5, 0.95)] == [2, 3]
  assert values[0.95]['false_detections']['by_error']['duplicate'] == 0


@pytest.mark.parametrize('objects, results', [(OBJECTS, []), (OBJECTS[:1], RESULTS[2:3])])
def test_nothing_detected_and_nothing_wrong(objects, results):
  """No division by zero, and a file of numbers that JSON has."""
  config = options()
  found = mistakes(by_hand(objects, results, unreadable=1), config.failures)
  values = numbers(found, config)
  assert values['false_detections']['false'] == 0 and values['confusions'] == []
  assert values['missed']['missed'] == (0 if results else 4) and values['unreadable_images'] == 1
  assert not any(false_table(found, Source(), 5).values())
  assert len(missed_table(found, Source(), 5)['x']) == values['missed']['missed']
  json.dumps(records.plain(values), allow_nan=False)
