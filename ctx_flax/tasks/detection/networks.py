"""From config.model to a detector, and the classes that it and its backbone tell apart."""

import dataclasses
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.models import DETECTORS, MODELS, create_model, families, is_contextual, used_keywords
from ctx_flax.nearest import nearest
from ctx_flax.training import restore, run_folder
from ctx_flax.training.compilation import jit_to_run_once
from ctx_flax.training.parallel import AXIS


def build_model(config: Any, source: Any) -> Any:
  """The detector of config.model; its number of classes is the source's if the config says 0."""
  classes = len(source.class_names)
  if config.model.num_classes not in (0, classes):
    raise ValueError(
      f'model.num_classes is {config.model.num_classes}, but {config.data.name} has {classes}; 0 takes what '
      'the data has'
    )
  return create_model(**model_keywords(config, classes), axis_name=AXIS)


def check_detector(config: Any) -> None:
  """Raises ValueError unless config.model names a detector and a network for its backbone."""
  model = config.model
  if model.name not in DETECTORS:
    hint = f'; a network is its model.backbone: {model.name}' if model.name in MODELS else ''
    raise ValueError(
      f'model.name is {model.name!r}, which is no detector{nearest(model.name, DETECTORS)}; known: '
      f'{", ".join(DETECTORS)}{hint}'
    )
  if model.backbone not in MODELS:
    raise ValueError(
      f'model.backbone is {model.backbone!r}, which is no network{nearest(model.backbone, MODELS)}; known: '
      f'{", ".join(MODELS)}'
    )


def model_keywords(config: Any, num_classes: int) -> dict[str, Any]:
  """The keywords of create_model that config.model makes."""
  check_detector(config)
  model = config.model
  # The config has the fields of all families: those that are as they would be anyway are left out, so that
  # create_model refuses only what was set and means nothing.
  own = MODELS[model.backbone][0]
  defaults = {
    field.name: field.default
    for part in (*families().values(), own, DETECTORS[model.name])
    for field in dataclasses.fields(part)
  }
  keywords = {name: value for name, value in model.items() if value != defaults.get(name)}
  if not model.context_classes:
    keywords.pop('context_classes')
  return used_keywords(model.name, keywords) | {'num_classes': num_classes}


def classes_of(
  config: Any, workdir: Any, open_source: Callable[[Any, str], Any], warn: Callable[[str], Any] = print
) -> Any:
  """Names of the classes and ids of their categories, from the data or, without it, from the weights.

  Args:
    config: of the run.
    workdir: its folder; without a run in it, init.weights are read.
    open_source: of the task.
    warn: is told in one line if classes are called by their numbers.

  Returns:
    What build_model asks of a source, and category_ids, which are () if they are not known.
  """
  missing = []
  for split in ('test', 'train'):  # of two files with the same categories the smaller one first
    try:
      return open_source(config, split)
    except FileNotFoundError as error:
      missing.append(error)
  _, names, about = restore.classes_of_weights(config, workdir, missing[0], warn)
  return types.SimpleNamespace(class_names=names, category_ids=tuple(about.get('category_ids', ())))


def with_contexts(config: Any, workdir: Any) -> Any:
  """The config with the classes of contexts, and their counts, that it leaves open: those of the weights.

  A run that has begun keeps its own, even if the weights are gone.
  """
  model = config.model
  if not is_contextual(model.backbone) or (model.context_classes and model.class_counts):
    return config
  saved = run_folder.saved(workdir)
  if saved is not None and not restore.from_file(config, workdir):
    theirs = saved['model']
  elif config.init.weights:
    theirs = restore.read_weights(config.init.weights).about['model']
  else:
    return config
  classes = theirs.get('context_classes') or theirs.get('num_classes') or 0
  config = config.copy_and_resolve_references()
  if not config.model.context_classes:
    config.model.context_classes = classes
  if not config.model.class_counts and config.model.context_classes == classes:
    config.model.class_counts = tuple(theirs.get('class_counts', ()))
  return config


def initial_variables(model: Any, key: jax.Array) -> Any:
  """Initial {'params', 'batch_stats'?}, made with the smallest image that there is."""
  return _initial_variables(key, model=model)


# Plans, restored weights and first states ask for those of one detector: it is traced once in a process.
@jit_to_run_once('model')
def _initial_variables(key: jax.Array, *, model: Any) -> Any:
  return model.init(key, jnp.zeros((1, *model.example_shape())), method=_all_layers)


def _all_layers(model: Any, images: jax.Array) -> None:
  """What has parameters, without the choice of proposals and detections, which takes long to compile."""
  pyramid, _ = model.features(images)
  model.rpn(pyramid)
  for stage in range(model.stages):
    model.box_head(pyramid, jnp.zeros((1, 1, 4)), stage=stage)
    model.mask_head(pyramid, jnp.zeros((1, 1, 4)), stage=stage)
