"""Other contexts: whose, of which classes, how alike they are; intervals of samples with a known answer."""

import itertools

import numpy as np
import pytest

from ctx_flax.analysis import bootstrap, context_sets

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
  'labels',
  [RNG.integers(0, 10, 300), np.repeat([0, 1], 50), np.arange(7), np.array([0, 1]), RNG.integers(0, 3, 31)],
  ids=['ten classes', 'two halves', 'one image each', 'two images', 'three classes'],
)
def test_other_images_are_of_other_classes(labels):
  other = context_sets.other_images(labels, 3)
  assert sorted(other) == list(range(len(labels)))
  assert not np.any(labels[other] == labels)
  np.testing.assert_array_equal(other, context_sets.other_images(labels, 3))
  if len(labels) > 7:
    assert np.any(other != context_sets.other_images(labels, 4))


@pytest.mark.parametrize('most', [6, 8, 9, 10])
def test_other_images_of_a_class_that_most_are_of(most):
  """No image gets its own context, and no more than must be that of another of its class."""
  labels = np.array([4] * most + [1] * (10 - most))
  for seed in range(20):
    other = context_sets.other_images(labels, seed)
    assert sorted(other) == list(range(10)) and not np.any(other == np.arange(10))
    assert (labels[other] == labels).sum() == 2 * most - 10


def test_confused_classes():
  """The class itself, though others are more probable, then the most probable, equal ones by number."""
  probabilities = np.array(
    [[0.1, 0.2, 0.6, 0.1], [0.0, 1.0, 0.0, 0.0], [0.4, 0.3, 0.2, 0.1], [0.3, 0.3, 0.2, 0.2]]
  )
  sets = context_sets.confused_classes(probabilities, 2)
  np.testing.assert_array_equal(sets, [[1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]])
  assert context_sets.confused_classes(probabilities, 4).all()


def test_random_classes():
  draw = lambda index, label, seed=5: context_sets.random_classes(index, label, (12, 6, 2), 20, seed)
  several = np.stack([draw(index, 7) for index in range(200)])
  assert several[:, :, 7].all() and (several.sum(2) == [12, 6, 2]).all()
  assert not np.any(several[:, 1:] & ~several[:, :-1])  # a later stage has none that an earlier one has not
  np.testing.assert_array_equal(several[9], draw(9, 7))
  assert np.any(several[9] != several[10]) and np.any(several[9] != draw(9, 7, 6))
  # All the others alike: 1 of 19 beside the label.
  shares = np.delete(several[:, 2].mean(0), 7)
  assert shares.max() < 0.15 and (shares > 0).sum() > 15
  for label in (0, 19):
    assert draw(0, label)[:, label].all()


def test_shared_classes():
  sets = RNG.permuted(np.tile(np.arange(9) < 4, (6, 1)), axis=1)
  pairs = [(a & b).sum() / 4 for a, b in itertools.combinations(sets, 2)]
  assert context_sets.shared_classes(sets.sum(0), 6, 4) == pytest.approx(np.mean(pairs))


def test_an_interval_of_a_known_sample(monkeypatch):
  """Half of 400 images right: the standard error of the share is 0.025."""
  right = np.arange(400) % 2.0
  values = np.stack([right, right, 1 - right], 1)
  means = bootstrap.resampled_sums(values, 2000, seed=1) / 400
  low, high = bootstrap.percentiles(means)
  np.testing.assert_allclose(low, 0.5 - 1.96 * 0.025, atol=0.004)
  np.testing.assert_allclose(high, 0.5 + 1.96 * 0.025, atol=0.004)
  # Columns are drawn together: what is equal has no difference, and opposites twice the error.
  low, high = bootstrap.percentiles(means[:, :1] - means[:, 1:])
  assert low[0] == high[0] == 0
  np.testing.assert_allclose([low[1], high[1]], [-1.96 * 0.05, 1.96 * 0.05], atol=0.008)
  monkeypatch.setattr(bootstrap, 'AT_ONCE', 7 * 400)
  np.testing.assert_array_equal(means, bootstrap.resampled_sums(values, 2000, seed=1) / 400)


def test_an_interval_of_what_is_not_always_known():
  """A stage that counts no image in some sample has no loss there."""
  samples = np.array([[1.0, 0.5], [2.0, np.nan], [3.0, 0.5]])
  low, high = bootstrap.percentiles(samples)
  assert np.isfinite([low[0], high[0]]).all() and np.isnan([low[1], high[1]]).all()
