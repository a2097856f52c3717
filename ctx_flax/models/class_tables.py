"""What the class selection of a network computes from its parameters alone, without an image."""

import functools
from collections.abc import Mapping
from typing import Any

import jax

from ctx_flax.layers.contextualizer import Contextualizer


def class_tables(contextualizer: Contextualizer, variables: Mapping[str, Any]) -> dict[str, Any]:
  """The collection 'class_tables' of a network with this contextualizer, see Network.class_tables."""
  return {'class_tables': {'contextualizer': _tables(contextualizer, _own(variables, 'params'))}}


def contexts(
  contextualizer: Contextualizer, variables: Mapping[str, Any], considered: jax.Array, stage: int
) -> jax.Array:
  """The contexts (b, e) of sets of classes, bool (b, n), see Network.contexts."""
  return _contexts(contextualizer, _own(variables, 'params', 'class_tables'), considered, stage)


@functools.partial(jax.jit, static_argnames=('contextualizer', 'stage'))
def _contexts(contextualizer: Contextualizer, variables: Any, considered: jax.Array, stage: int) -> Any:
  return contextualizer.apply(variables, considered, stage, method='context')


@functools.partial(jax.jit, static_argnames='contextualizer')  # networks with equal layers share it
def _tables(contextualizer: Contextualizer, params: Mapping[str, Any]) -> Any:
  return contextualizer.apply(params, method='tables')


def _own(variables: Mapping[str, Any], *collections: str) -> dict[str, Any]:
  """The contextualizer's part of the named collections, as far as there are such."""
  return {name: variables[name]['contextualizer'] for name in collections if name in variables}
