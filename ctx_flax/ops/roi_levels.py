"""RoIAlign on the maps of a pyramid: map after map, a few of its boxes at a time, with its own gradient rule.

Letters: n boxes, h w grid of a map, s r bins along y and x, c channels.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ctx_flax.ops import roi_products
from ctx_flax.ops.geometry import accumulation
from ctx_flax.ops.roi_samples import Samples

Maps = tuple[jax.Array, ...]


class Regions(NamedTuple):
  """Boxes: their samples along y and x, and their level (n,) int32, which is the number of a map."""

  y: Samples
  x: Samples
  level: jax.Array


class Options(NamedTuple):
  """What is static: (h, w, dtype) of each map, bins (rows, columns), sampling ratio, the way or None."""

  kinds: tuple[tuple[int, int, str], ...]
  size: tuple[int, int]
  ratio: int
  path: str | None


class Way(NamedTuple):
  """How some boxes on one map are computed, and their gradient; `at_once` of the bins along y says how
  many."""

  forward: Callable[..., jax.Array]
  gradient: Callable[..., jax.Array]
  at_once: Callable[[int], int]


WAYS = {
  # An intermediate result has the bins along y of these boxes, the width and the channels of the map: 38 MB
  # for the finest one of an image of 800 x 1344.
  'separable': Way(roi_products.whole, roi_products.whole_gradient, lambda bins: max(112 // bins, 1)),
  'windows': Way(roi_products.windows, roi_products.windows_gradient, lambda bins: 1),
}


# Linear in the maps, so that the gradient needs none of them.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def align(maps: Maps, regions: Regions, options: Options) -> jax.Array:
  """Features (n, s, r, c) of the regions of maps (h, w, c), in at least float32."""
  return _by_platform(_forward, options, maps, regions)


def _align_forward(maps: Maps, regions: Regions, options: Options) -> tuple[jax.Array, Regions]:
  return align(maps, regions, options), regions


def _align_backward(options: Options, regions: Regions, dout: jax.Array) -> tuple[Maps, None]:
  return _by_platform(_gradient, options, dout, regions), None


align.defvjp(_align_forward, _align_backward)
# Traced once for all boxes of one number.
align_once = jax.jit(align, static_argnums=2)


def _by_platform(function: Callable[..., Any], options: Options, arrays: Any, regions: Regions) -> Any:
  # Images come one after the other: vmap would make loops of these that choose in every turn between the old
  # and the new values of each image.
  ways = {
    name: jax.custom_batching.sequential_vmap(functools.partial(function, options, way))
    for name, way in WAYS.items()
  }
  if options.path:
    return ways[options.path](arrays, regions)
  return jax.lax.platform_dependent(arrays, regions, cpu=ways['windows'], default=ways['separable'])


def _forward(options: Options, way: Way, maps: Maps, regions: Regions) -> jax.Array:
  turns = _Turns(regions, options, way)
  n, c = len(regions.level), maps[0].shape[-1]
  out = jnp.zeros((len(turns.order), *options.size, c), accumulation(maps[0]))
  for level, features in enumerate(maps):

    def add(turn: jax.Array, out: jax.Array, level: int = level, features: jax.Array = features) -> jax.Array:
      some = way.forward(
        turns.take(out, turn), features, *turns.samples(turn, level), options.size, options.ratio
      )
      return jax.lax.dynamic_update_slice_in_dim(out, some, turn * turns.at_once, 0)

    out = jax.lax.fori_loop(*turns.of_level(level), add, out)
  return out[jnp.argsort(turns.order)[:n]]


def _gradient(options: Options, way: Way, dout: jax.Array, regions: Regions) -> Maps:
  turns = _Turns(regions, options, way)
  dout = dout.at[turns.order].get(mode='fill', fill_value=0)
  gradients = []
  for level, (h, w, dtype) in enumerate(options.kinds):

    def add(turn: jax.Array, total: jax.Array, level: int = level) -> jax.Array:
      y, x = turns.samples(turn, level)
      return way.gradient(total, turns.take(dout, turn), y, x, options.size, options.ratio)

    total = jnp.zeros((h, w, dout.shape[-1]), dout.dtype)
    gradients.append(jax.lax.fori_loop(*turns.of_level(level), add, total).astype(dtype))
  return tuple(gradients)


class _Turns:
  """Boxes sorted by level, `at_once` of them in a turn; a turn may hold boxes of several levels.

  Attributes:
    order: the boxes in this order; at the end numbers from n on, which are none, to fill the last turn.
  """

  def __init__(self, regions: Regions, options: Options, way: Way) -> None:
    n = len(regions.level)
    self.at_once = min(way.at_once(options.size[0]), n)
    fill = (0, -n % self.at_once)
    self.order = jnp.argsort(jnp.pad(regions.level, fill, constant_values=len(options.kinds)), stable=True)
    self._regions = jax.tree.map(lambda array: jnp.pad(array, fill)[self.order], regions)
    self._ends = jnp.cumsum(jnp.bincount(regions.level, length=len(options.kinds)))

  def of_level(self, level: int) -> tuple[jax.Array, jax.Array]:
    """The first turn with boxes of a level, and the one after the last."""
    first = self._ends[level - 1] if level else jnp.zeros_like(self._ends[0])
    return first // self.at_once, -(-self._ends[level] // self.at_once)

  def take(self, array: jax.Array, turn: jax.Array) -> jax.Array:
    """The rows of a turn, of an array in this order."""
    return jax.lax.dynamic_slice_in_dim(array, turn * self.at_once, self.at_once)

  def samples(self, turn: jax.Array, level: int) -> tuple[Samples, Samples]:
    """The samples of a turn along y and x; none for boxes of other levels."""
    y, x, of = jax.tree.map(lambda array: self.take(array, turn), self._regions)
    return y._replace(number=jnp.where(of == level, y.number, 0)), x
