"""From the fields of a config to the settings of a detector's training."""

import ml_collections
import pytest

from ctx_flax.configs import paths
from ctx_flax.configs.fields import detector_training
from ctx_flax.tasks.detection.assignment import Thresholds
from ctx_flax.tasks.detection.settings import Draw, Settings, settings_of


def settings(**changes):
  config = ml_collections.ConfigDict()
  detector_training.add_fields(config)
  for path, value in changes.items():
    paths.put(config, path.replace('__', '.'), value)
  return settings_of(config)


def test_the_defaults_are_those_of_mask_rcnn():
  assert settings() == Settings()
  assert settings().loss_weights == {'rpn_class': 1, 'rpn_box': 1, 'class0': 1, 'box0': 1, 'mask0': 1}


def test_cascade_rcnn():
  cascade = settings(
    assignment__region_iou=(0.5, 0.6, 0.7),
    assignment__region_best=False,
    sampling__regions=64,
    sampling__region_positives=16,
    loss__anchor_beta=1 / 9,
    loss__box='giou',
    loss__box_weight=10.0,
    loss__stage_weights=(1, 0.5, 0.25),
  )
  assert cascade.anchors == Thresholds(0.7, 0.3, 0.3)
  assert cascade.regions == (Thresholds(0.5, 0.5), Thresholds(0.6, 0.6), Thresholds(0.7, 0.7))
  assert (cascade.anchor_draw, cascade.region_draw) == (Draw(256, 128), Draw(64, 16))
  weights = cascade.loss_weights
  assert [weights[f'{name}{s}'] for s in range(3) for name in ('class', 'box', 'mask')] == [
    *(1, 10, 1),
    *(0.5, 5, 0.5),
    *(0.25, 2.5, 0.25),
  ]


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'loss__stage_weights': (1, 1)}, r'loss\.stage_weights=\(1, 1\) and assignment\.region_iou=\(0\.5,\)'),
    ({'sampling__regions': 100}, r'sampling\.region_positives=128 must be .* at most sampling\.regions=100'),
    ({'loss__box': 'l2'}, r"loss\.box is 'l2': expected one of \('l1', 'giou'\)"),
    ({'assignment__anchor_iou': (0.7, 0.3)}, r'expected 0 < negative <= positive'),
  ],
)
def test_contradictions_are_named(changes, message):
  with pytest.raises(ValueError, match=message):
    settings(**changes)


def test_the_defaults_keep_their_rules():
  config = ml_collections.ConfigDict()
  detector_training.add_fields(config)
  problems = {path: detector_training.RULES[path].problem(value) for path, value in paths.leaves(config)}
  assert problems.keys() == detector_training.RULES.keys() and not any(problems.values()), problems
