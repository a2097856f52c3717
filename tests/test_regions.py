"""The regions that a stage learns from, and those that it hands to the next."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_flax.tasks.detection.assignment import Thresholds
from ctx_flax.tasks.detection.regions import refined, sample_regions
from ctx_flax.tasks.detection.settings import Draw

BACKGROUND = 5
# Two objects; proposals on the first, on the second (twice), beside both, and one that is none.
OBJECT_BOXES = jnp.array([[0, 0, 10, 10], [20, 20, 40, 40]], jnp.float32)
LABELS = jnp.array([3, 1], jnp.int32)
PROPOSALS = jnp.array(
  [[0, 0, 10, 8], [20, 20, 40, 39], [50, 50, 60, 60], [21, 20, 40, 40], [0, 0, 10, 10]], jnp.float32
)
VALID = jnp.array([True, True, True, True, False])
TAKE_ALL = Draw(100, 100)
run = jax.jit(sample_regions, static_argnames=('thresholds', 'draw', 'background'))


def draw(object_boxes=OBJECT_BOXES, labels=LABELS, how=TAKE_ALL, seed=0):
  return run(
    PROPOSALS, VALID, object_boxes, labels, jax.random.key(seed), Thresholds(0.5, 0.5), how, BACKGROUND
  )


def test_proposals_and_the_objects_themselves():
  regions = draw()
  expected = [PROPOSALS[0], PROPOSALS[1], PROPOSALS[3], *OBJECT_BOXES, PROPOSALS[2], np.zeros(4), np.zeros(4)]
  np.testing.assert_array_equal(regions.boxes[:7], np.stack(expected)[:7])
  assert regions.objects.tolist() == [0, 1, 1, 0, 1, 0, 0]
  assert regions.labels.tolist() == [3, 1, 1, 3, 1, BACKGROUND, BACKGROUND]
  assert regions.positive.tolist() == [True] * 5 + [False] * 2
  assert regions.valid.tolist() == [True] * 6 + [False]
  assert regions.own.tolist() == [False] * 3 + [True] * 2 + [False] * 2


def test_an_image_without_objects_has_background_alone():
  regions = draw(OBJECT_BOXES, jnp.full(2, -1, jnp.int32))
  assert not regions.positive.any() and not regions.own.any()
  assert regions.valid.sum() == 4 and (regions.labels == BACKGROUND).all()


@pytest.mark.parametrize('seed', range(4))
def test_places_for_objects_leave_the_draw_as_it_is(seed):
  """A batch has as many as its fullest image needs."""
  alone = draw(how=Draw(3, 2), seed=seed)
  more = draw(
    jnp.pad(OBJECT_BOXES, ((0, 9), (0, 0))), jnp.pad(LABELS, (0, 9), constant_values=-1), Draw(3, 2), seed
  )
  for one, other in zip(alone, more, strict=True):
    np.testing.assert_array_equal(one, other)


def test_the_next_stage_sees_regions_moved_by_their_class_and_no_objects():
  regions = jax.tree.map(lambda x: x[None], draw())
  logits = jnp.zeros((1, 7, BACKGROUND + 1)).at[:, :, BACKGROUND].set(9.0).at[:, 5, 2].set(1.0)
  seen = {}

  def refine(boxes, deltas, labels, *, stage, valid_hw):
    seen.update(labels=labels, stage=stage, valid_hw=valid_hw)
    return boxes + deltas

  boxes, valid = refined(
    types.SimpleNamespace(refine=refine), regions, logits, jnp.ones(4)[None, None], 'hw', 1
  )
  np.testing.assert_array_equal(boxes, regions.boxes + 1)
  assert seen['labels'][0, :6].tolist() == [3, 1, 1, 3, 1, 2]  # the object's; of background the best class
  assert (seen['stage'], seen['valid_hw']) == (1, 'hw')
  assert valid.tolist() == [[True, True, True, False, False, True, False]]
