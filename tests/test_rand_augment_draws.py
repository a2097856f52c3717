"""RandAugment: which operations there are, what a level means to each, and what is drawn how often."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from ctx_flax.data import rand_augment

ENHANCE = ('color', 'contrast', 'brightness', 'sharpness')
GEOMETRIC = {'rotate': 30.0, 'shear_x': 0.3, 'shear_y': 0.3, 'translate_x': 0.45, 'translate_y': 0.45}


def test_there_are_fifteen_operations():
  assert set(rand_augment.NAMES) == {
    *('auto_contrast', 'equalize', 'invert', 'posterize', 'solarize', 'solarize_add'),
    *ENHANCE,
    *GEOMETRIC,
  }
  assert len(rand_augment.NAMES) == 15


# What a level means.


@pytest.mark.parametrize(
  'name, at_0, at_9, at_10',
  [
    ('posterize', 4, 1, 0),
    ('solarize', 256, 26, 0),
    ('solarize_add', 0, 99, 110),
    *((name, None, None, None) for name in ('auto_contrast', 'equalize', 'invert')),
  ],
)
def test_levels_without_a_sign(name, at_0, at_9, at_10):
  argument = rand_augment.OPERATIONS[name][0]
  for sign in (-1, 1):
    assert [argument(level, sign) for level in (0.0, 9.0, 10.0)] == [at_0, at_9, at_10]


@pytest.mark.parametrize('name', ENHANCE)
def test_levels_of_the_enhancing_operations(name):
  """1 changes nothing; below, it weakens, but never to less than a tenth."""
  argument = rand_augment.OPERATIONS[name][0]
  assert [argument(level, 1) for level in (0.0, 9.0, 10.0)] == pytest.approx([1, 1.81, 1.9])
  assert [argument(level, -1) for level in (0.0, 9.0, 10.0)] == pytest.approx([1, 0.19, 0.1])
  assert argument(10.0, -1) >= 0.1


@pytest.mark.parametrize('name', GEOMETRIC)
def test_levels_of_the_geometric_operations(name):
  argument, largest = rand_augment.OPERATIONS[name][0], GEOMETRIC[name]
  for sign in (-1, 1):
    expected = [0, sign * 0.9 * largest, sign * largest]
    assert [argument(level, sign) for level in (0.0, 9.0, 10.0)] == pytest.approx(expected)


@pytest.mark.parametrize('name', ['posterize', 'solarize', 'solarize_add', *ENHANCE, *GEOMETRIC])
def test_operations_get_stronger_with_the_level(name):
  """The mean distance from the image as it was never falls, and begins at nothing but for few bits."""
  argument, operation = rand_augment.OPERATIONS[name]
  y, x = np.mgrid[:32, :32]
  ramp = 5 * y + 3 * x + 60 * (x > 20)  # with an edge, for sharpness
  image = Image.fromarray(np.stack([ramp, ramp // 2, ramp], axis=-1).clip(0, 255).astype(np.uint8))
  for sign in (-1, 1):
    differences = []
    for level in (0.0, 3.0, 6.0, 10.0):
      result = np.asarray(operation(image, argument(level, sign), (0, 0, 0)), int)
      differences.append(abs(result - np.asarray(image, int)).mean())
    assert differences == sorted(differences) and differences[-1] > differences[0] + 0.5
    # Level 0 of posterize keeps four bits of eight: 7.5 less on average.
    assert differences[0] == 0 or (name == 'posterize' and differences[0] < 8)


# What is drawn.


def draws(n, operations=2, magnitude=9.0, magnitude_std=0.5, probability=0.5):
  rng = np.random.default_rng(0)
  return [rand_augment.draw(rng, operations, magnitude, magnitude_std, probability) for _ in range(n)]


def level_of(name, argument):
  """The signed level that a geometric operation was drawn at."""
  return argument / GEOMETRIC[name] * 10


def test_each_of_two_operations_is_applied_half_of_the_time():
  lengths = np.bincount([len(drawn) for drawn in draws(4000)])
  assert stats.chisquare(lengths, [1000, 2000, 1000]).pvalue > 0.01


@pytest.mark.parametrize('operations, probability, length', [(0, 1.0, 0), (5, 0.0, 0), (5, 1.0, 5)])
def test_none_or_all_are_applied(operations, probability, length):
  assert {len(drawn) for drawn in draws(50, operations, probability=probability)} == {length}


def test_operations_are_equally_frequent_and_drawn_with_replacement():
  pairs = [(first[0], second[0]) for first, second in draws(6000, probability=1.0)]
  numbers = np.array([[rand_augment.NAMES.index(name) for name in pair] for pair in pairs])
  for place in (0, 1):
    assert stats.chisquare(np.bincount(numbers[:, place], minlength=15)).pvalue > 0.01
  # The second knows nothing of the first: it is the same one time out of fifteen.
  together = np.bincount(numbers[:, 0] * 15 + numbers[:, 1], minlength=225)
  assert stats.chisquare(together).pvalue > 0.01


def test_levels_are_normal_up_to_ten_and_signs_even():
  """Of one operation among the two, an own level: 9 +- 0.5, of which one in 44 would be above 10."""
  levels = np.array(
    [level_of(*step) for drawn in draws(9000, probability=1.0) for step in drawn if step[0] in GEOMETRIC]
  )
  assert abs((levels > 0).mean() - 0.5) < 3 * 0.5 / math.sqrt(len(levels))
  sizes = abs(levels)
  at_the_limit = np.isclose(sizes, 10)
  assert sizes.max() <= 10 + 1e-9 and 0.015 < at_the_limit.mean() < 0.031
  below = sizes[~at_the_limit]
  assert stats.kstest(below, stats.truncnorm(-18, 2, loc=9, scale=0.5).cdf).pvalue > 0.01


def test_levels_do_not_fall_below_zero():
  levels = [
    level_of(*step)
    for drawn in draws(500, magnitude=0.0, magnitude_std=3.0, probability=1.0)
    for step in drawn
    if step[0] == 'rotate'
  ]
  assert 0.3 < np.mean(np.array(levels) == 0) < 0.7 and max(np.abs(levels)) > 4


def test_without_a_deviation_the_level_is_the_magnitude():
  for drawn in draws(200, magnitude=7.0, magnitude_std=0.0, probability=1.0):
    for name, argument in drawn:
      if name in GEOMETRIC:
        assert abs(level_of(name, argument)) == pytest.approx(7)


def test_draws_follow_from_the_generator_alone():
  assert draws(20) == draws(20)
  assert draws(2, probability=1.0)[0] != draws(2, probability=1.0)[1]
