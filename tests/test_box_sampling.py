"""The draw of boxes: how many, in which order, equally likely, and the same whatever stands beside them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_flax.tasks.detection.assignment import BACKGROUND, IGNORED
from ctx_flax.tasks.detection.sampling import sample

# Boxes 1, 4, 6, 9 belong to objects, 2, 3, 5, 7, 10 are background.
OBJECTS = jnp.array([-2, 3, -1, -1, 0, -1, 2, -1, -2, 1, -1], jnp.int32)
POSITIVE, NEGATIVE = [1, 4, 6, 9], [2, 3, 5, 7, 10]
run = jax.jit(sample, static_argnames=('size', 'positives'))


@pytest.mark.parametrize(
  'size, positives, drawn',
  [
    (4, 2, (2, 2)),
    (8, 2, (2, 5)),  # an empty slot, as there is not enough background
    (6, 5, (4, 2)),  # the places that positives leave go to background
    (3, 3, (3, 0)),
    (5, 0, (0, 5)),
    (11, 11, (4, 5)),
  ],
)
def test_counts_and_order(size, positives, drawn):
  samples = run(OBJECTS, jax.random.key(size), size=size, positives=positives)
  indices = samples.indices.tolist()
  first, second = indices[: drawn[0]], indices[drawn[0] : sum(drawn)]
  assert len(indices) == size
  assert samples.positive.tolist() == [slot < drawn[0] for slot in range(size)]
  assert samples.valid.tolist() == [slot < sum(drawn) for slot in range(size)]
  for part, boxes in ((first, POSITIVE), (second, NEGATIVE)):
    assert part == sorted(set(part)) and set(part) <= set(boxes)


def test_a_size_of_all_takes_all():
  """Positives by number, then background by number, whatever the key."""
  samples = run(OBJECTS, jax.random.key(0), size=10**6, positives=10**6)
  assert samples.indices.tolist() == POSITIVE + NEGATIVE + [0, 0]
  assert samples.valid.tolist() == [True] * 9 + [False] * 2


def test_nothing_to_draw():
  for objects in (jnp.full(3, IGNORED), jnp.zeros(0, jnp.int32)):
    assert not run(objects, jax.random.key(0), size=2, positives=1).valid.any()
  samples = run(jnp.full(3, BACKGROUND), jax.random.key(0), size=2, positives=1)
  assert samples.valid.all() and not samples.positive.any()


def test_every_choice_is_equally_likely():
  """2 of 4 positives and 2 of 5 negatives: 6 pairs, 10 pairs, and 60 of both together."""
  count = 12_000
  keys = jax.random.split(jax.random.key(7), count)
  draw = jax.jit(jax.vmap(functools.partial(sample, OBJECTS, size=4, positives=2)))
  _, frequencies = np.unique(np.asarray(draw(keys).indices), axis=0, return_counts=True)
  assert len(frequencies) == 60
  expected = count / 60
  chi_squared = ((frequencies - expected) ** 2 / expected).sum()
  assert chi_squared < 98  # 0.1 % of uniform draws are above


def test_boxes_behind_change_nothing():
  """Places for objects that a batch adds at the end leave the draw among the others as it is."""
  key = jax.random.key(3)
  more = jnp.concatenate([OBJECTS, jnp.full(9, IGNORED, jnp.int32)])
  for one, other in zip(
    run(OBJECTS, key, size=6, positives=2), run(more, key, size=6, positives=2), strict=True
  ):
    np.testing.assert_array_equal(one, other)
