"""Working on a few images at a time, so that what they need stays in a CPU's cache."""

import jax
import jax.numpy as jnp


def largest_divisor(number: int, at_most: int) -> int:
  """The largest divisor of `number` that is at most `at_most`; at least 1."""
  return next(n for n in range(max(min(at_most, number), 1), 0, -1) if number % n == 0)


def split(array: jax.Array, images: int, axis: int = 0) -> jax.Array:
  """(..., b, ...) -> (b // images, ..., images, ...), for a loop over the first axis."""
  parts = array.shape[axis] // images
  array = array.reshape(*array.shape[:axis], parts, images, *array.shape[axis + 1 :])
  return jnp.moveaxis(array, axis, 0)


def join(array: jax.Array, axis: int = 0) -> jax.Array:
  """Undoes `split`."""
  array = jnp.moveaxis(array, 0, axis)
  return array.reshape(
    *array.shape[:axis], array.shape[axis] * array.shape[axis + 1], *array.shape[axis + 2 :]
  )
