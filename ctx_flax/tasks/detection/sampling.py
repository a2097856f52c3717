"""Which of the assigned boxes take part in a step, drawn at random in fixed shapes.

Axes: n boxes, s slots. One image each, vmap for more.

Source: MMDetection 2.11, RandomSampler.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ctx_flax.tasks.detection.assignment import BACKGROUND


class Samples(NamedTuple):
  """Slots with the drawn boxes: positives by their number, then negatives by theirs, then empty slots.

  Attributes:
    indices: (s,) int32, the number of the box; 0 in an empty slot.
    positive: (s,) bool, the box belongs to an object.
    valid: (s,) bool, the slot is not empty.
  """

  indices: jax.Array
  positive: jax.Array
  valid: jax.Array


def sample(objects: jax.Array, key: jax.Array, *, size: int, positives: int) -> Samples:
  """Draws without replacement: up to `positives` boxes of objects, then background, `size` in all.

  Every choice is equally likely. Where there are no more boxes of a kind than may be drawn all of them are,
  so that a size of n or more takes all that are not ignored.

  Args:
    objects: (n,) int, the number of a box's object, BACKGROUND or IGNORED, as of an Assignment.
    key: of the draw.
    size: s, if there are that many boxes; else n slots are returned.
    positives: boxes of objects at most.
  """
  (n,) = objects.shape
  size, positives = min(size, n), min(positives, size, n)
  bits = jax.random.bits(key, (n,)) >> 1  # 31 bits, so that the integers in -1, 0, 1, ... order them
  noise = jax.lax.bitcast_convert_type(bits, jnp.int32)
  positive, taken = _draw(objects >= 0, noise, positives, positives)
  negative, left = _draw(objects == BACKGROUND, noise, size, size - taken)
  slots = jnp.arange(size, dtype=jnp.int32)
  is_positive, valid = slots < taken, slots < taken + left
  padded = jnp.pad(positive, (0, size - positives))
  drawn = jnp.where(is_positive, padded, jnp.roll(negative, taken))
  return Samples(jnp.where(valid, drawn, 0), is_positive, valid)


def _draw(candidates, noise, most, room):
  """(`most`,) numbers of candidates, `room` or fewer by rising number, then n; and how many there are."""
  n = len(candidates)
  values, indices = jax.lax.top_k(jnp.where(candidates, noise, -1), most)
  ranks = jnp.arange(most, dtype=jnp.int32)
  taken = (values >= 0) & (ranks < room)
  return jnp.sort(jnp.where(taken, indices, n)), taken.sum(dtype=jnp.int32)
