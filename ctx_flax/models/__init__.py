"""The table of networks, and create_model."""

import dataclasses
import difflib

import jax.numpy as jnp

from ctx_flax.layers.contextualizer import SELECTIONS, check_class_counts
from ctx_flax.models.convnext import ConvNeXt
from ctx_flax.models.resnet import ResNet

__all__ = ['MODELS', 'ConvNeXt', 'ResNet', 'create_model']

# name -> (class, attributes). The mini ones are for small images, tests and first steps.
_PLAIN: dict[str, tuple[type, dict]] = {
  'convnext_t': (ConvNeXt, {'depths': (3, 3, 9, 3), 'dims': (96, 192, 384, 768)}),
  'convnext_s': (ConvNeXt, {'depths': (3, 3, 27, 3), 'dims': (96, 192, 384, 768)}),
  'convnext_b': (ConvNeXt, {'depths': (3, 3, 27, 3), 'dims': (128, 256, 512, 1024)}),
  'convnext_mini': (ConvNeXt, {'depths': (1, 1, 2, 1), 'dims': (32, 64, 128, 256)}),
  'resnet50': (ResNet, {'depths': (3, 4, 6, 3), 'dims': (64, 128, 256, 512)}),
  'resnet_mini': (ResNet, {'depths': (1, 1, 2, 1), 'dims': (16, 32, 64, 128)}),
}
MODELS = {
  **_PLAIN,
  **{
    f'ctx_{name}': (family, {**attributes, 'contextual': True})
    for name, (family, attributes) in _PLAIN.items()
  },
}


def create_model(name, **keywords):
  """Builds a network of the table MODELS.

  Args:
    name: 'ctx_convnext_t', 'convnext_t', 'ctx_resnet50', ...; see MODELS.
    **keywords: attributes of ConvNeXt or ResNet. () for depths, dims or class_counts, and None for a dtype,
      mean the model's own; dtypes may be names.

  Returns:
    A linen module: logits, out = model.apply(variables, images, train=False).

  Raises:
    ValueError: an unknown name or keyword (with the nearest known one), or a value that does not fit.
  """
  if name not in MODELS:
    raise ValueError(f'unknown model {name!r}{_nearest(name, MODELS)}; known: {", ".join(MODELS)}')
  family, attributes = MODELS[name]
  known = {field.name for field in dataclasses.fields(family)} - {'parent', 'name', 'contextual'}
  attributes = dict(attributes)
  for key, value in keywords.items():
    if key not in known:
      raise ValueError(f'{name} takes no {key!r}{_nearest(key, known)}; known: {", ".join(sorted(known))}')
    if key in ('depths', 'dims') and not value:
      continue
    if key in ('dtype', 'param_dtype') and value is not None:
      value = jnp.dtype(value)
    attributes[key] = tuple(value) if isinstance(value, list) else value
  model = family(**attributes)
  _check(name, model)
  return model


def _check(name, model):
  for key in ('depths', 'dims'):
    values = getattr(model, key)
    if len(values) != 4 or min(values) < 1:
      raise ValueError(f'{name}: {key}={values}: expected four positive integers')
  if model.num_classes < 2:
    raise ValueError(f'{name}: num_classes={model.num_classes}: expected at least 2')
  if model.class_selection not in SELECTIONS:
    raise ValueError(
      f'{name}: class_selection={model.class_selection!r}{_nearest(model.class_selection, SELECTIONS)}; '
      f'expected one of {SELECTIONS}'
    )
  if model.class_counts:
    if len(model.class_counts) != 3:
      raise ValueError(
        f'{name}: class_counts={model.class_counts}: expected N_2, N_3, N_4, or () to derive them'
      )
    check_class_counts(model.class_counts, model.num_classes)


def _nearest(word, known):
  close = difflib.get_close_matches(str(word), list(known), 1)
  return f', did you mean {close[0]!r}?' if close else ''
