"""The table of networks, and create_model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from ctx_flax.models.convnext import ConvNeXt
from ctx_flax.models.network import Network
from ctx_flax.models.resnet import ResNet
from ctx_flax.nearest import nearest

__all__ = ['MODELS', 'ConvNeXt', 'Network', 'ResNet', 'create_model', 'families', 'used_keywords']

# name -> (class, attributes). The mini ones are for small images, tests and first steps.
_PLAIN: dict[str, tuple[type[Network], dict[str, Any]]] = {
  'convnext_t': (ConvNeXt, {'depths': (3, 3, 9, 3), 'dims': (96, 192, 384, 768)}),
  'convnext_s': (ConvNeXt, {'depths': (3, 3, 27, 3), 'dims': (96, 192, 384, 768)}),
  'convnext_b': (ConvNeXt, {'depths': (3, 3, 27, 3), 'dims': (128, 256, 512, 1024)}),
  'convnext_mini': (ConvNeXt, {'depths': (1, 1, 2, 1), 'dims': (32, 64, 128, 256)}),
  'resnet50': (ResNet, {'depths': (3, 4, 6, 3), 'dims': (64, 128, 256, 512)}),
  'resnet_mini': (ResNet, {'depths': (1, 1, 2, 1), 'dims': (16, 32, 64, 128)}),
}
MODELS: dict[str, tuple[type[Network], dict[str, Any]]] = {
  **_PLAIN,
  **{
    f'ctx_{name}': (family, {**attributes, 'contextual': True})
    for name, (family, attributes) in _PLAIN.items()
  },
}


def create_model(name: str, **keywords: Any) -> Network:
  """Builds a network of the table MODELS.

  Args:
    name: 'ctx_convnext_t', 'convnext_t', 'ctx_resnet50', ...; see MODELS.
    **keywords: attributes of Network and of its family, ConvNeXt or ResNet. () for depths, dims or
      class_counts, and None for a dtype, mean the model's own; dtypes may be names.

  Returns:
    A linen module: logits, out = model.apply(variables, images, train=False).

  Raises:
    ValueError: an unknown name or keyword (with the nearest known one), a value that does not fit, or an
      option of contextual networks that a plain one would ignore.
  """
  if name not in MODELS:
    raise ValueError(f'unknown model {name!r}{nearest(name, MODELS)}; known: {", ".join(MODELS)}')
  family, attributes = MODELS[name]
  known = {field.name for field in dataclasses.fields(family)} - {'parent', 'name', 'contextual'}
  attributes = dict(attributes)
  for key, value in keywords.items():
    if key not in known:
      raise ValueError(f'{name} takes no {key!r}{nearest(key, known)}; known: {", ".join(sorted(known))}')
    if key in ('depths', 'dims') and not value:
      continue
    if key in ('dtype', 'param_dtype') and value is not None:
      value = _dtype(name, key, value)
    attributes[key] = tuple(value) if isinstance(value, list) else value
  model = family(**attributes)
  for key, value in attributes.items():
    if key not in used_keywords(name, attributes):
      raise ValueError(f'{name} is a plain network, which has no use for {key}={value!r}: leave it out')
  try:
    model.check_attributes()
  except ValueError as error:
    raise ValueError(f'{name}: {error}') from None
  return model


def used_keywords(name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
  """The keywords without the contextual options, if `name` is a plain network that would ignore them.

  For settings that contextual and plain networks share; create_model refuses such options.
  """
  if name not in MODELS or is_contextual(name):
    return dict(keywords)
  family = MODELS[name][0]
  defaults = {field.name: field.default for field in dataclasses.fields(family)}
  ignored = set(family.contextual_options)
  return {key: value for key, value in keywords.items() if key not in ignored or value == defaults[key]}


def is_contextual(name: str) -> bool:
  """Whether a name of MODELS is that of a contextual network; False for an unknown one."""
  return name in MODELS and bool(MODELS[name][1].get('contextual'))


def families() -> dict[str, type[Network]]:
  """The families of MODELS by the names of their classes."""
  return {family.__name__: family for family, _ in MODELS.values()}


def _dtype(name: str, key: str, value: Any) -> jnp.dtype:
  known = 'float32', 'bfloat16', 'float16', 'float64'
  try:
    dtype = jnp.dtype(value)
  except TypeError:
    dtype = None
  if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
    raise ValueError(f'{name}: {key}={value!r}: expected one of {known}{nearest(value, known)}') from None
  return dtype
