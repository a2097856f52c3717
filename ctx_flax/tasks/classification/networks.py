"""From config.model to a network, and the classes that it tells apart."""

import dataclasses
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.models import DETECTORS, MODELS, create_model, used_keywords
from ctx_flax.training import restore
from ctx_flax.training.compilation import jit_to_run_once
from ctx_flax.training.parallel import AXIS


def build_model(config: Any, source: Any) -> Any:
  """The model of config.model; its number of classes is the source's if the config says 0."""
  if config.model.name in DETECTORS:
    raise ValueError(
      f'model.name is {config.model.name}, a detector, but the task is {config.task}: its recipes begin with '
      "default.get_config(task='detection')"
    )
  if config.model.num_classes not in (0, source.num_classes):
    raise ValueError(
      f'model.num_classes is {config.model.num_classes}, but {config.data.name} has {source.num_classes}; '
      '0 takes what the data has'
    )
  return create_model(**model_keywords(config, source.num_classes), axis_name=AXIS)


def model_keywords(config: Any, num_classes: int) -> dict[str, Any]:
  """The keywords of create_model that config.model makes."""
  # The config has the fields of all families: those that this one lacks are left out if they say nothing
  # (the default of the family that has them); create_model refuses the others.
  families = {name: family for name, (family, _) in MODELS.items()}
  defaults = {
    field.name: field.default for family in families.values() for field in dataclasses.fields(family)
  }
  own = families.get(config.model.name)
  keywords = {name: v for name, v in config.model.items() if hasattr(own, name) or v != defaults.get(name)}
  return used_keywords(config.model.name, keywords) | {'num_classes': num_classes}


def initial_variables(config: Any, model: Any, key: jax.Array) -> Any:
  """Initial {'params', 'batch_stats'?}, made with one image, or clip, of data.image_size pixels a side."""
  return _initial_variables(key, model=model, side=config.data.image_size)


# Plans, restored weights and first states ask for those of one network: it is traced once in a process.
@jit_to_run_once('model', 'side')
def _initial_variables(key: jax.Array, *, model: Any, side: int) -> Any:
  return model.init(key, jnp.zeros((1, *model.example_shape(side))), train=False)


def check_classes(train_source: Any, test_source: Any) -> None:
  """Raises ValueError if training and test images are of different classes."""
  if train_source.num_classes != test_source.num_classes:
    raise ValueError(
      f'the training images have {train_source.num_classes} classes and the test images '
      f'{test_source.num_classes}: they must be the same'
    )


def classes_of(
  config: Any, workdir: Any, open_source: Callable[[Any, str], Any], warn: Callable[[str], Any] = print
) -> Any:
  """Number and names of the classes, from the data or, if it is not available, from the weights.

  Args:
    config: of the run.
    workdir: its folder; without a run in it, init.weights are read.
    open_source: of the task.
    warn: is told in one line if classes are called by their numbers.

  Returns:
    What build_model asks of a source.
  """
  try:
    return open_source(config, 'train')
  except FileNotFoundError as error:
    number, names, _ = restore.classes_of_weights(config, workdir, error, warn)
    return types.SimpleNamespace(num_classes=number, class_names=names)
