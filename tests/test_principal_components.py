"""Principal components against vectors whose axes are known, and distances by class by hand."""

import numpy as np
import pytest

from ctx_flax.analysis.principal_components import distances_by_class, principal_components


def test_known_axes():
  rng = np.random.default_rng(0)
  axes, _ = np.linalg.qr(rng.normal(size=(5, 2)))
  for i in range(2):  # the largest loading of each is positive
    axes[:, i] *= np.sign(axes[np.abs(axes[:, i]).argmax(), i])
  plane = rng.normal(size=(40, 2)) * [3, 1]
  plane -= plane.mean(0)
  left, sizes, _ = np.linalg.svd(plane, full_matrices=False)
  coordinates, shares = principal_components(plane @ axes.T + 7)
  np.testing.assert_allclose(shares, sizes**2 / (sizes**2).sum(), rtol=1e-6)
  np.testing.assert_allclose(np.abs(coordinates), np.abs(left * sizes), atol=1e-6)
  # Distances are kept, as all lies in a plane; and the map is the same for turned vectors.
  near = lambda points: np.linalg.norm(points[:, None] - points[None], axis=-1)
  np.testing.assert_allclose(near(coordinates), near(plane), atol=1e-6)
  again, _ = principal_components((plane @ axes.T + 7)[::-1])
  np.testing.assert_allclose(again[::-1], coordinates, atol=1e-6)


@pytest.mark.parametrize('d', [3, 12])  # fewer and more numbers than vectors: SVD and products
def test_both_ways_agree_with_the_covariance(d):
  vectors = np.random.default_rng(d).normal(size=(6, d)) * np.arange(1, d + 1)
  values, axes = np.linalg.eigh(np.cov(vectors.T))
  axes = axes[:, ::-1][:, :2]
  axes = axes * np.sign(axes[np.abs(axes).argmax(0), [0, 1]])  # the largest loading is positive
  coordinates, shares = principal_components(vectors)
  np.testing.assert_allclose(shares, values[::-1][:2] / values.sum(), rtol=1e-9)
  np.testing.assert_allclose(coordinates, (vectors - vectors.mean(0)) @ axes, atol=1e-9)


def test_a_second_component_that_is_rounding():
  line = np.linspace(0, 1, 5)[:, None] * np.arange(1.0, 9)[None]
  coordinates, shares = principal_components(line)
  np.testing.assert_allclose(shares, [1, 0])
  assert (np.diff(coordinates[:, 0]) > 0).all() and not coordinates[:, 1].any()


@pytest.mark.parametrize(
  'vectors', [np.full((6, 4), 0.1), np.full((6, 4), 1e8) + np.eye(6, 4), np.zeros((3, 2))]
)
def test_no_variance(vectors):
  coordinates, shares = principal_components(vectors.astype(np.float32))
  assert not coordinates.any() and not shares.any()


def test_one_dimension():
  coordinates, shares = principal_components(np.array([[1.0], [3.0]]))
  np.testing.assert_allclose(coordinates, [[-1, 0], [1, 0]])
  np.testing.assert_allclose(shares, [1, 0])


def test_distances_by_hand():
  vectors = np.array([[0.0, 0], [3, 4], [0, 1]])
  labels = np.array([0, 0, 1])
  considered = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 0]], bool)
  found = distances_by_class(vectors, labels, considered)
  np.testing.assert_allclose(found['same_class'], 5)
  np.testing.assert_allclose(found['all_images'], (5 + 1 + 18**0.5) / 3)
  assert not found['same_considered']
  np.testing.assert_allclose(found['other_class'], (1 + 18**0.5) / 2)
  # Pairs 01, 02, 12: distances 5, 1, 18 ** 0.5; they share 1 of 3, 2 of 2, 1 of 3 classes.
  expected = np.corrcoef([5, 1, 18**0.5], [1 / 3, 1, 1 / 3])[0, 1]
  np.testing.assert_allclose(found['correlation'], expected)


def test_nothing_to_compare():
  found = distances_by_class(np.ones((3, 2)), np.array([0, 1, 2]), np.ones((3, 4), bool))
  assert np.isnan(found['same_class']) and np.isnan(found['correlation'])
  assert found['same_considered']
  np.testing.assert_allclose(found['other_class'], 0, atol=1e-6)


def test_one_pair_of_different_images_has_no_correlation():
  found = distances_by_class(np.eye(2), np.array([0, 1]), np.eye(2, dtype=bool))
  assert np.isnan(found['correlation']) and np.isnan(found['same_class'])
  assert not found['same_considered']  # not the reason
