"""From the config to what a run needs; a ValueError names the field that is wrong."""

import dataclasses
import os

import jax

from ctx_flax.data import pipeline
from ctx_flax.models import MODELS, create_model, used_keywords
from ctx_flax.training import starting_point
from ctx_flax.training import step as steps


def build_model(config, source):
  """The model of config.model; its number of classes is that of the source where the config says 0."""
  if config.model.num_classes not in (0, source.num_classes):
    raise ValueError(
      f'model.num_classes is {config.model.num_classes}, but {config.data.name} has {source.num_classes}; '
      '0 takes what the data has'
    )
  return create_model(**model_keywords(config, source.num_classes), axis_name=steps.AXIS)


def model_keywords(config, num_classes):
  """The keywords of create_model that config.model makes."""
  # The config has the fields of all families: those that this one lacks are left out where they say nothing
  # (the default of the family that has them); create_model refuses the others.
  families = {name: family for name, (family, _) in MODELS.items()}
  defaults = {
    field.name: field.default for family in families.values() for field in dataclasses.fields(family)
  }
  own = families.get(config.model.name)
  keywords = {name: v for name, v in config.model.items() if hasattr(own, name) or v != defaults.get(name)}
  return used_keywords(config.model.name, keywords) | {'num_classes': num_classes}


def initial_state(config, model, tx):
  """The state at step 0."""
  shape = (config.data.image_size, config.data.image_size, 3)
  return steps.create_state(model, tx, jax.random.key(config.seed), shape, ema=config.train.ema_decay > 0)


def check_settings(config):
  """Raises ValueError for a batch that the devices cannot share, and for fractions outside their range."""
  pipeline.check_settings(config)
  steps.check_settings(config)
  starting_point.check_settings(config)
  devices = jax.device_count()
  for field, size in (('train', config.train.batch_size), ('eval', config.eval.batch_size)):
    if size % devices:
      raise ValueError(f'{field}.batch_size is {size}: it must be a multiple of the {devices} devices')
  rows = config.train.batch_size // devices
  if rows % config.train.accumulation:
    raise ValueError(
      f'train.accumulation is {config.train.accumulation}: it must divide the {rows} images of a device'
    )
  if (config.data.mixup or config.data.cutmix) and config.train.batch_size // jax.process_count() % 2:
    raise ValueError(
      f'train.batch_size is {config.train.batch_size}: images are mixed in pairs, so the part of each of '
      f'{jax.process_count()} processes must be even'
    )
  if config.loss.alpha < 0:
    raise ValueError(f'loss.alpha must be 0 or more, but is {config.loss.alpha}')
  fractions = {'train.ema_decay': config.train.ema_decay, 'loss.label_smoothing': config.loss.label_smoothing}
  for field, value in fractions.items():
    if not 0 <= value < 1:
      raise ValueError(f'{field} must be at least 0 (off) and below 1, but is {value}')


def check_classes(train_source, test_source):
  """Raises ValueError where training and test images are of different classes."""
  if train_source.num_classes != test_source.num_classes:
    raise ValueError(
      f'the training images have {train_source.num_classes} classes and the test images '
      f'{test_source.num_classes}: they must be the same'
    )


def prepare_jax(config):
  """Tells jax what it must know before it runs anything: the compilation cache, deterministic operations."""
  use_compilation_cache(config)
  if config.train.deterministic:
    flags = os.environ.get('XLA_FLAGS', '')
    if '--xla_gpu_deterministic_ops' not in flags:
      # Read when the devices are first used. The scatter-adds of deformable convolution's gradient add up in
      # any order otherwise.
      os.environ['XLA_FLAGS'] = f'{flags} --xla_gpu_deterministic_ops=true'.strip()


def use_compilation_cache(config):
  """Lets jax keep compiled programs in config.compilation_cache, unless that is '' or jax was told before."""
  # The options of jax.config are made at run time, so a type checker does not see them.
  told = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
  if config.compilation_cache and not told:
    jax.config.update('jax_compilation_cache_dir', os.path.expanduser(config.compilation_cache))
