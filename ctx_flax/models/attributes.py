"""Which attributes of a network, and which images, have a meaning."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.layers.ablations import check_ablate
from ctx_flax.layers.contextualizer import check_class_counts
from ctx_flax.models.limits import at_least, is_number
from ctx_flax.nearest import nearest


def check_attributes(network: Any) -> None:
  """Raises ValueError, one line that names it, for an attribute of a Network that has no meaning."""
  stages = len(type(network).dims)
  for key in ('depths', 'dims'):
    values = getattr(network, key)
    if len(values) != stages or not all(at_least(1).allows(value) for value in values):
      raise ValueError(f'{key}={values}: expected {stages} positive integers')
  for key, limit in network.limits.items():
    limit.check(key, getattr(network, key))
  for field in dataclasses.fields(network):
    if field.type is bool and not isinstance(getattr(network, field.name), bool):
      raise ValueError(f'{field.name}={getattr(network, field.name)!r}: expected True or False')
  if network.segments > 1 and not network.take_clips:
    raise ValueError(
      f'segments={network.segments}: expected 1, as {type(network).__name__} takes images, no clips'
    )
  for key, known in network.choices.items():
    if getattr(network, key) not in known:
      value = getattr(network, key)
      raise ValueError(f'{key}={value!r}: expected one of {known}{nearest(value, known)}')
  check_ablate(network.ablate)
  if network.class_counts:
    if len(network.class_counts) != stages - 1 or not all(
      is_number(count, int) for count in network.class_counts
    ):
      counts = ', '.join(f'N_{stage}' for stage in range(2, stages + 1))
      raise ValueError(f'class_counts={network.class_counts}: expected {counts}, or () to derive them')
    check_class_counts(network.class_counts, network.num_classes)


def check_images(network: Any, images: jax.Array) -> None:
  """Raises ValueError unless images fit a Network: (b, h, w, c), or clips, with sides long enough."""
  clips = network.segments > 1
  if jnp.ndim(images) != (5 if clips else 4):
    expected = f'clips (b, t, h, w, c), as segments is {network.segments}' if clips else '(b, h, w, c)'
    raise ValueError(f'images have shape {jnp.shape(images)}; expected {expected}')
  *_, h, w, _ = images.shape
  if clips and images.shape[1] != network.segments:
    raise ValueError(
      f'clips have {images.shape[1]} frames; this network takes {network.segments} (its segments)'
    )
  smallest = network.smallest_side
  if min(h, w) < smallest:
    raise ValueError(
      f'images have {h} x {w} pixels; this network needs at least {smallest} x {smallest}, so that its '
      'last stage has a pixel left'
    )
