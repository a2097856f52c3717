"""Batches of NumPy arrays: {'image': float32 (b, h, w, 3), 'label': int32 (b,), 'weight': float32 (b,)}.

The batch of a training step depends on the seed and the step alone, not on where a run began, nor on the
number of threads. weight is 1 for images and 0 for what only fills up the last batch of an evaluation.
"""

import functools

import grain
import numpy as np

from ctx_flax.data import transforms


def check_settings(config):
  """Raises ValueError for a field that no batch can be made with."""
  for field, size in (('train', config.train.batch_size), ('eval', config.eval.batch_size)):
    if size < 1:
      raise ValueError(f'{field}.batch_size must be 1 or more, but is {size}')
  for name in ('mean', 'std'):
    if len(config.data[name]) not in (1, 3):
      raise ValueError(f'data.{name} must hold 1 or 3 values, but is {config.data[name]}')
  if min(config.data.std) <= 0:
    raise ValueError(f'data.std must be above 0, but is {config.data.std}')
  if config.data.threads < 0:
    raise ValueError(f'data.threads must be 0 or more, but is {config.data.threads}')
  if not 0 <= config.seed < 2**32:
    raise ValueError(f'seed must be between 0 and 2**32 - 1, but is {config.seed}')


def train_batches(source, config, start=0):
  """Endless batches for the steps start, start + 1, ... of a run.

  Every epoch is shuffled and augmented anew; a batch may hold the end of one epoch and the start of the
  next, so that every image is used equally often.

  Args:
    source: a Source of ctx_flax.data.sources.
    config: uses seed, train.batch_size, data.{mean, std, rotate, shift, scale, threads}.
    start: the step of the first batch.

  Returns:
    A grain iterator of batches.
  """
  check_settings(config)
  data = config.data
  prepare = functools.partial(
    _prepare_train,
    augment=functools.partial(
      transforms.random_affine, rotate=data.rotate, shift=data.shift, scale=data.scale
    ),
    normalise=functools.partial(transforms.normalise, mean=data.mean, std=data.std),
  )
  batches = (
    grain.MapDataset.source(source)
    .seed(config.seed)
    .shuffle()
    .repeat(None)
    .random_map(prepare)
    # Before to_iter_dataset, else the make-up of a batch depends on the number of threads.
    .batch(config.train.batch_size)
  )
  return iter(batches[start:].to_iter_dataset(_read_options(data.threads)))


def eval_batches(source, config):
  """All images once, in order, the last batch filled up with images of weight 0.

  Args:
    source: a Source of ctx_flax.data.sources.
    config: uses eval.batch_size, data.{mean, std, threads}.

  Returns:
    A grain iterator of batches, all of eval.batch_size images.
  """
  check_settings(config)
  data, size = config.data, config.eval.batch_size
  prepare = functools.partial(
    _prepare_eval, normalise=functools.partial(transforms.normalise, mean=data.mean, std=data.std)
  )
  batches = (
    grain.MapDataset.source(source).map(prepare).batch(size).map(functools.partial(fill_up, size=size))
  )
  return iter(batches.to_iter_dataset(_read_options(data.threads)))


def fill_up(batch, size):
  """Repeats the last image with weight 0 until the batch has `size` of them."""
  missing = size - len(batch['weight'])
  filled = {name: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) for name, x in batch.items()}
  filled['weight'][size - missing :] = 0
  return filled


def _prepare_train(example, rng, *, augment, normalise):
  return _example(normalise(augment(example['image'], rng)), example['label'])


def _prepare_eval(example, *, normalise):
  return _example(normalise(example['image']), example['label'])


def _example(image, label):
  return {'image': image, 'label': np.int32(label), 'weight': np.float32(1)}


def _read_options(threads):
  # In units of batches: enough that no thread waits for the step, few enough that memory stays small.
  return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
