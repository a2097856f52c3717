"""Global average pooling, and the masks that keep the padding of a mixed batch out of it.

`valid` is bool (b, h, w, 1), or None when every image fills its array.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


def global_average_pool(x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
  """Mean over the valid pixels: (b, h, w, c) -> (b, c) in the dtype of x, summed in at least float32."""
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  if valid is None:
    return jnp.mean(wide, (1, 2)).astype(x.dtype)
  count = jnp.sum(valid, (1, 2)).astype(wide.dtype)
  return (jnp.sum(jnp.where(valid, wide, 0), (1, 2)) / count).astype(x.dtype)


def valid_pixels(valid_hw: jax.Array, h: int, w: int) -> jax.Array:
  """valid_hw (b, 2) int -> (b, h, w, 1) bool: row < valid height and column < valid width."""
  rows = jnp.arange(h).reshape(1, h, 1, 1) < valid_hw[:, 0].reshape(-1, 1, 1, 1)
  columns = jnp.arange(w).reshape(1, 1, w, 1) < valid_hw[:, 1].reshape(-1, 1, 1, 1)
  return rows & columns


class Extents(NamedTuple):
  """How far the images of a mixed batch reach, in pixels of the image or of a coarser map.

  Attributes:
    valid_hw: (b, 2) int, what is the image: what is pooled. None if every image fills its array.
    padded_hw: (b, 2) int, the image and padding of its own: what convolutions see. None for `valid_hw`.
  """

  valid_hw: jax.Array | None = None
  padded_hw: jax.Array | None = None

  def map(self, function: Callable[[jax.Array], jax.Array]) -> 'Extents':
    """The extents with a function applied to both sizes."""
    return Extents(*(None if size is None else function(size) for size in self))

  def valid(self, x: jax.Array) -> jax.Array | None:
    """The mask (b, h, w, 1) of a map (b, h, w, c) that leaves the images."""
    return None if self.valid_hw is None else valid_pixels(self.valid_hw, *x.shape[1:3])

  def padded(self, x: jax.Array) -> jax.Array | None:
    """The mask (b, h, w, 1) of a map (b, h, w, c) that leaves the images and padding of their own."""
    return self.valid(x) if self.padded_hw is None else valid_pixels(self.padded_hw, *x.shape[1:3])


def extents_of(valid_hw: jax.Array | None, padded_hw: jax.Array | None) -> Extents:
  """Extents of which each size is by default the other."""
  return Extents(padded_hw) if valid_hw is None else Extents(valid_hw, padded_hw)


def zero_invalid(x: jax.Array, valid: jax.Array | None) -> jax.Array:
  """Zeros outside the valid pixels: what a convolution would see if the image ended there."""
  return x if valid is None else jnp.where(valid, x, jnp.zeros((), x.dtype))
