"""Parts of a batch for a loop, and back."""

import numpy as np
import pytest

from ctx_flax.ops.in_turn import join, largest_divisor, split


@pytest.mark.parametrize(
  ('number', 'at_most', 'found'),
  [(8, 8, 8), (8, 7, 4), (8, 3, 2), (7, 6, 1), (6, 0, 1), (6, 99, 6), (0, 5, 1)],
)
def test_largest_divisor(number, at_most, found):
  assert largest_divisor(number, at_most) == found


@pytest.mark.parametrize('axis', [0, 1])
def test_parts_hold_neighbours_and_join_to_the_whole(axis):
  array = np.arange(6 * 6 * 2).reshape(6, 6, 2)
  parts = split(array, 2, axis)
  assert parts.shape == ((3, 2, 6, 2), (3, 6, 2, 2))[axis]
  for i in range(3):
    np.testing.assert_array_equal(parts[i], np.take(array, (2 * i, 2 * i + 1), axis))
  np.testing.assert_array_equal(join(parts, axis), array)
  assert split(array[:0], 1).shape == (0, 1, 6, 2)
