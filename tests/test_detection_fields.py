"""Fields of instance segmentation and their rules."""

import re

import numpy as np
import pytest
from coco_files import detection_config

from ctx_flax.configs import default, paths
from ctx_flax.configs.fields import detection
from ctx_flax.data import canvases, detection_draws

COMMON = dict(paths.leaves(default.get_config()))
FIELDS = dict(paths.leaves(detection_config()))


def test_every_field_of_its_own_has_a_rule():
  own = {path for path in FIELDS if path in detection.RULES or path not in COMMON}
  assert own == detection.RULES.keys()
  for path in own:
    assert detection.RULES[path].problem(FIELDS[path]) == ''


@pytest.mark.parametrize(
  'path, value, problem',
  [
    ('data.scales', (0,), r'must hold lengths, 1 to 8192, but is \(0,\)'),
    ('data.crop_sides', (600, 384), r'must be \(least, largest\) side, but is \(600, 384\)'),
    ('data.crop_sides', (384,), r'must be \(least, largest\) side'),
    ('data.canvases', (640, 864), r'must hold \(short, long\) sides, 32 to 8192, but is \(640, 864\)'),
    ('data.canvases', ((640, 864, 3),), r'must hold \(short, long\) sides'),
    ('data.max_objects', 0, 'must be 1 or more, but is 0'),
    ('data.flip', 1.5, 'must be a probability, 0 to 1, but is 1.5'),
    ('eval.short_side', 10_000, 'must be at most 8192, but is 10000'),
  ],
)
def test_rules(path, value, problem):
  assert re.match(problem, detection.RULES[path].problem(value))


def test_the_default_canvases_hold_coco():
  """Images of all shapes at every scale: nothing is refused after hours."""
  config = detection_config()
  detection.add_fields(config.unlock())
  hw = np.array([(h, w) for h in range(32, 700, 31) for w in range(32, 700, 31)])
  augmentation = detection_draws.augmentation(config)
  sizes = canvases.both_orientations(config.data.canvases)
  for largest in augmentation.largest_hw(hw):
    canvases.check_fit(largest, sizes, str)
