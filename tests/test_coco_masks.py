"""Masks of COCO files: both notations of run lengths, polygons by pycocotools, and damage to them."""

import math

import numpy as np
import pytest
from pycocotools import mask as pycocotools_mask

from ctx_flax.data import coco_masks


def random_masks(n):
  rng = np.random.default_rng(0)
  for _ in range(n):
    h, w = rng.integers(1, 40, 2)
    yield (rng.random((h, w)) < rng.choice([0, 0.05, 0.5, 1])).astype(np.uint8)


def circle(n, hw=(60, 80), radius=20):
  angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
  points = np.stack([40 + radius * np.cos(angles), 30 + radius * np.sin(angles)], axis=-1)
  return points.round(2).ravel().tolist()


def test_run_lengths_by_hand():
  """Down the columns, first those of 0."""
  mask = np.array([[0, 1], [1, 1]], np.uint8)
  assert coco_masks.encode(mask) == {'size': [2, 2], 'counts': [1, 3]}
  assert coco_masks.encode(mask.T[:, :1] + 1 > 0) == {'size': [2, 1], 'counts': [0, 2]}
  np.testing.assert_array_equal(coco_masks.decode({'counts': [1, 1, 1, 1]}, (2, 2)), [[0, 0], [1, 1]])


def test_run_lengths_are_those_of_pycocotools():
  """Its text of them says the same, and what is encoded is decoded to itself."""
  for mask in random_masks(60):
    theirs = pycocotools_mask.encode(np.asfortranarray(mask))
    ours = coco_masks.encode(mask)
    text = theirs['counts'].decode('ascii')
    assert coco_masks.run_lengths(text).tolist() == ours['counts']
    assert pycocotools_mask.frPyObjects(ours, *mask.shape) == theirs
    for segmentation in (ours, {'size': [*mask.shape], 'counts': text}):
      assert coco_masks.problem(segmentation) == ''
      decoded = coco_masks.decode(segmentation, mask.shape)
      np.testing.assert_array_equal(decoded, mask, strict=True)


def test_large_counts_have_many_digits():
  mask = np.zeros((3000, 4000), np.uint8)
  mask[7:2999, 2000:2003] = 1
  counts = pycocotools_mask.encode(np.asfortranarray(mask))['counts'].decode('ascii')
  np.testing.assert_array_equal(coco_masks.decode({'counts': counts}, mask.shape), mask)


def test_polygons_are_pixels_by_the_rule_of_pycocotools():
  """Several parts are one mask; a part of two points is none."""
  parts = [circle(30), [1.5, 2, 20.25, 2, 20, 9.75, 1, 9], [3, 3, 9, 9]]
  mask = coco_masks.decode(parts, (60, 80))
  theirs = pycocotools_mask.merge(pycocotools_mask.frPyObjects(parts[:2], 60, 80))
  assert coco_masks.encode(mask)['counts'] == coco_masks.run_lengths(theirs['counts'].decode()).tolist()
  assert mask.dtype == np.uint8 and mask.flags.c_contiguous
  area = 30 / 2 * 20**2 * np.sin(2 * np.pi / 30)
  assert abs(mask[:, 20:].sum() - area) < 10 and mask[3:9, 2:19].all()


def test_polygons_as_the_reference_has_them(golden):
  """The polygons of two objects as MMDetection's bitmaps."""
  values = golden('coco/mask_target')
  masks = values['masks']
  names = sorted(name for name in values if name.startswith('polygon'))
  assert len(names) == len(masks)
  h, w = masks.shape[1:]
  for name, mask in zip(names, masks, strict=True):
    np.testing.assert_array_equal(coco_masks.decode([values[name].ravel().tolist()], (h, w)), mask)


@pytest.mark.parametrize(
  'segmentation, code',
  [
    ([circle(20)], ''),
    ([circle(20), [1, 1, 2, 2]], ''),
    (None, 'mask'),
    ([], 'mask'),
    ('text', 'mask'),
    ([[]], 'points'),
    ([[1, 1, 9, 9]], 'points'),
    ([circle(20), [1, 1, 9, 9, 5]], 'polygon'),
    ([[1, 1, 9, 9, 5, math.nan]], 'polygon'),
    ([[1, 1, 9, 9, -math.inf, 3]], 'polygon'),
    ([[1, 1, 9, 9, 1e6, 3]], 'polygon'),
    ([[1, 1, 9, 9, 10**400, 3]], 'polygon'),
    ([[1, 1, 9, 9, '5', 3]], 'polygon'),
    ([[1, 1, 9, 9, None, 3]], 'polygon'),
    ([[[1, 1], [9, 9], [5, 3], [2, 2]]], 'polygon'),
    ([1, 1, 9, 9, 5, 3], 'polygon'),
    ([{'x': 1, 'y': 2}], 'polygon'),
    ({'size': [4, 5], 'counts': [20]}, ''),
    ({'size': [4, 5], 'counts': [0, 20]}, ''),
    ({'size': [4, 5], 'counts': [5, 14]}, 'counts'),
    ({'size': [4, 5], 'counts': [5, 16]}, 'counts'),
    ({'size': [4, 5], 'counts': [25, -5]}, 'counts'),
    ({'size': [4, 5], 'counts': [19.0, 1]}, 'counts'),
    ({'size': [4, 5], 'counts': []}, 'counts'),
    ({'size': [4, 5], 'counts': [10**30]}, 'counts'),
    ({'size': [4, 5], 'counts': None}, 'counts'),
    ({'size': [4, 5]}, 'counts'),
    ({'size': [4], 'counts': [4]}, 'counts'),
    ({'size': [4.0, 5], 'counts': [20]}, 'counts'),
    ({'size': ['4', 5], 'counts': [20]}, 'counts'),
    ({'counts': [20]}, 'counts'),
    ({'size': [0, 5], 'counts': [0]}, 'counts'),
    ({'size': [10**9, 10**9], 'counts': [10**18]}, 'counts'),
    ({'size': [10, 10], 'counts': 'zz'}, 'counts'),
    ({'size': [10, 10], 'counts': ''}, 'counts'),
    ({'size': [10, 10], 'counts': 'P'}, 'counts'),  # goes on
    ({'size': [10, 10], 'counts': 'o' * 50 + '0'}, 'counts'),
    ({'size': [10, 10], 'counts': 'T3é'}, 'counts'),
    ({'size': [10, 10], 'counts': 'T3€'}, 'counts'),
    ({'size': [10, 10], 'counts': 'T3'}, ''),  # 100
    ({'size': [9, 10], 'counts': 'T3'}, 'counts'),
  ],
)
def test_damage_is_told(segmentation, code):
  """pycocotools ends the process at some of these, and reads memory that was never written for others."""
  assert coco_masks.problem(segmentation) == code
