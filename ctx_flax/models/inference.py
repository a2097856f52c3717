"""Inference of whole networks."""

import math
from collections.abc import Mapping
from typing import Any

import jax

from ctx_flax.models.network import Network
from ctx_flax.ops.in_turn import join, largest_divisor, split

CACHE_PIXELS = (
  2 * 224 * 224
)  # of the images whose activations stay in a CPU's cache; measured with ConvNeXt-T


def apply_in_turn(
  model: Network,
  variables: Mapping[str, Any],
  images: jax.Array,
  at_once: int | None = None,
  replace: Mapping[str, jax.Array] | None = None,
) -> Any:
  """model.apply(variables, images, train=False), a few images at a time.

  On CPUs the activations of a batch do not fit into the cache, and networks wait for memory: two images of
  224 px at a time are up to a quarter faster than eight. Accelerators want the whole batch.

  Args:
    model: a network of ctx_flax.models.
    variables: its variables.
    images: (b, h, w, 3), or clips (b, t, h, w, 3).
    at_once: a divisor of b; None: by size on a CPU, all elsewhere.
    replace: {name: array (b, ...)}, what takes the place of intermediates.

  Returns:
    (logits, out) as from model.apply.

  Raises:
    ValueError: at_once does not divide b.
  """
  b, *example, _ = images.shape
  if at_once is None:
    at_once = largest_divisor(b, CACHE_PIXELS // math.prod(example)) if jax.default_backend() == 'cpu' else b
  elif at_once < 1 or b % at_once:
    raise ValueError(f'at_once is {at_once}: it must divide the {b} images')
  # Networks of other projects need not know the keyword.
  keywords: dict[str, Any] = {} if replace is None else {'replace': dict(replace)}
  if at_once >= b:
    return model.apply(variables, images, train=False, **keywords)
  if 'class_tables' not in variables:
    variables = {**variables, **model.class_tables(variables)}  # outside of the loop

  def run(some: Any) -> Any:
    images, keywords = some
    return model.apply(variables, images, train=False, **keywords)

  found = jax.lax.map(run, jax.tree.map(lambda x: split(x, at_once), (images, keywords)))
  return jax.tree.map(join, found)
