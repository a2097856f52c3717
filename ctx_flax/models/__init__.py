"""The tables of networks and detectors, and create_model."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, overload

import jax.numpy as jnp

from ctx_flax.models.convnext import ConvNeXt
from ctx_flax.models.detection import CascadeMaskRCNN, Detections, Detector, MaskRCNN
from ctx_flax.models.network import Network
from ctx_flax.models.resnet import ResNet
from ctx_flax.nearest import nearest

__all__ = [
  'DETECTORS',
  'MODELS',
  'CascadeMaskRCNN',
  'ConvNeXt',
  'Detections',
  'Detector',
  'MaskRCNN',
  'Network',
  'ResNet',
  'create_model',
  'families',
  'used_keywords',
]

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


DETECTORS: dict[str, type[Detector]] = {'mask_rcnn': MaskRCNN, 'cascade_mask_rcnn': CascadeMaskRCNN}
# What a detector's backbone is without being asked.
BACKBONE = 'ctx_convnext_t'
# Attributes of networks that mean nothing in a backbone, or that the detector has instead.
_NOT_OF_BACKBONES = {'num_classes', 'axis_name', 'segments', 'temporal_shift', 'context', 'dropout'}


@overload
def create_model(name: Literal['mask_rcnn', 'cascade_mask_rcnn'], **keywords: Any) -> Detector: ...


@overload
def create_model(name: str, **keywords: Any) -> Network: ...


def create_model(name: str, **keywords: Any) -> Network | Detector:
  """Builds a network of the table MODELS, or a detector of DETECTORS.

  Args:
    name: 'ctx_convnext_t', 'convnext_t', 'ctx_resnet50', ..., see MODELS; 'mask_rcnn', 'cascade_mask_rcnn'.
    **keywords: attributes of Network and of its family, ConvNeXt or ResNet. () for depths, dims or
      class_counts, and None for a dtype, mean the model's own; dtypes may be names.
      Of a detector: the attributes of Detector; `backbone`, the name of a network, by default
      'ctx_convnext_t'; `context_classes`, by default 1000, the number of classes from which a contextual
      backbone chooses its contexts; and attributes of the backbone.

  Returns:
    A linen module: logits, out = model.apply(variables, images, train=False), or of a detector Detections.

  Raises:
    ValueError: an unknown name or keyword (with the nearest known one), a value that does not fit, or an
      option of contextual networks that a plain one would ignore.
  """
  if name in DETECTORS:
    return _create_detector(name, keywords)
  if name not in MODELS:
    names = *MODELS, *DETECTORS
    raise ValueError(f'unknown model {name!r}{nearest(name, names)}; known: {", ".join(names)}')
  family, attributes = MODELS[name]
  known = _keywords_of(family)
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


def _create_detector(name: str, keywords: Mapping[str, Any]) -> Detector:
  family = DETECTORS[name]
  backbone = keywords.get('backbone', BACKBONE)
  if backbone not in MODELS:
    raise ValueError(f'{name}: backbone={backbone!r}{nearest(backbone, MODELS)}; known: {", ".join(MODELS)}')
  own = _keywords_of(family) | {'context_classes'}
  of_backbone = _keywords_of(MODELS[backbone][0]) - _NOT_OF_BACKBONES
  for key in keywords:
    if key not in own | of_backbone:
      known = sorted(own | of_backbone)
      raise ValueError(f'{name} takes no {key!r}{nearest(key, known)}; known: {", ".join(known)}')
  rest = {key: value for key, value in keywords.items() if key in of_backbone}
  if 'context_classes' in keywords:
    classes = keywords['context_classes']
    if not is_contextual(backbone) and classes != Network.num_classes:
      raise ValueError(
        f'{name}: {backbone} is a plain network, which has no use for context_classes={classes!r}: leave it '
        'out'
      )
    rest['num_classes'] = classes
  try:
    attributes = {'backbone': create_model(backbone, **rest)}
  except ValueError as error:
    raise ValueError(f'{name}: {str(error).replace("num_classes=", "context_classes=")}') from None
  for key in (own - {'backbone', 'context_classes'}) & set(keywords):
    value = keywords[key]
    attributes[key] = _dtype(name, key, value) if key.endswith('dtype') and value is not None else value
  model = family(**attributes)
  try:
    model.check_attributes()
  except ValueError as error:
    raise ValueError(f'{name}: {error}') from None
  return model


def _keywords_of(family: type[Network | Detector]) -> set[str]:
  return {field.name for field in dataclasses.fields(family)} - {'parent', 'name', 'contextual'}


def used_keywords(name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
  """The keywords without the contextual options, if `name` is a plain network that would ignore them.

  For settings that contextual and plain networks share; create_model refuses such options. A detector is
  plain if its backbone is.
  """
  if name in DETECTORS:
    backbone = keywords.get('backbone', BACKBONE)
    used = used_keywords(backbone, keywords)
    return {k: v for k, v in used.items() if k != 'context_classes' or is_contextual(backbone)}
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
