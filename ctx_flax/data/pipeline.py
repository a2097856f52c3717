"""Batches of NumPy arrays, made on grain.

  'image' float32 (b, s, s, 3), 'label' int32 (b,);
  'weight' float32 (b,): 1 for images, 0 for rows that only fill up the last batch of an evaluation;
  'bad' int32 (b,): the index of the unreadable image that stood in this place, -1 where none did;
  'other_label' int32 (b,), 'lam' float32 (b,): where mixup or cutmix is on, see ctx_flax.data.mixing.

The batch of a training step depends on the seed and the step alone: not on where a run began, nor on the
number of threads, worker processes or processes that share the batch, each of which makes its own rows of it.
"""

import dataclasses
import functools
import gc
import multiprocessing
import os
import signal
import threading
from typing import Any

import grain
import numpy as np
from absl import flags

from ctx_flax.data import mixing, shared_memory, transforms
from ctx_flax.data.decode import BadImage

ON_BAD_IMAGE = 'skip', 'error'
BAD_IN_A_ROW = 100  # so many unreadable images are no accident


def check_settings(config):
  """Raises ValueError for a field that no batch can be made with."""
  data = config.data
  for field, size in (('train', config.train.batch_size), ('eval', config.eval.batch_size)):
    if size < 1:
      raise ValueError(f'{field}.batch_size must be 1 or more, but is {size}')
  for name in ('threads', 'workers', 'prefetch'):
    if data[name] < 0:
      raise ValueError(f'data.{name} must be 0 or more, but is {data[name]}')
  if data.on_bad_image not in ON_BAD_IMAGE:
    raise ValueError(f'data.on_bad_image must be one of {ON_BAD_IMAGE}, but is {data.on_bad_image!r}')
  if not 0 <= config.seed < 2**32:
    raise ValueError(f'seed must be between 0 and 2**32 - 1, but is {config.seed}')
  transforms.check_settings(config)


def train_batches(source, config, start=0, process=0, processes=1):
  """Endless batches for the steps start, start + 1, ... of a run.

  Every epoch is shuffled and augmented anew; a batch may hold the end of one epoch and the start of the
  next, so that every image is used equally often. An unreadable image is replaced by the next good one.

  Args:
    source: a Source of ctx_flax.data.sources.
    config: uses seed, train.batch_size (of all processes together) and data.
    start: the step of the first batch.
    process, processes: which rows are made here: part `process` of `processes` equal ones.

  Returns:
    Batches, to be closed: that ends the worker processes. They raise BadImage for an
    unreadable image where config.data.on_bad_image is 'error', and for too many in a row.

  Raises:
    ValueError: a setting is wrong, or the processes cannot share a batch.
  """
  check_settings(config)
  data = config.data
  elements = (
    grain.MapDataset.range(len(source))
    .seed(config.seed)
    .shuffle()
    .repeat(None)
    .random_map(TrainElement(source, transforms.train_transform(config), data.on_bad_image))
  )
  size = _share(config.train.batch_size, process, processes, 'train')
  # Before to_iter_dataset, else the make-up of a batch depends on the number of threads and workers.
  batches = OwnRows(elements, config.train.batch_size, size, process).batch(size)
  if data.mixup or data.cutmix:
    mix = functools.partial(
      mixing.mix,
      mixup=data.mixup,
      cutmix=data.cutmix,
      probability=data.mix_probability,
      switch=data.mix_switch,
    )
    batches = batches.seed(config.seed).random_map(mix)
  return _iterate(batches[start:], data)


def eval_batches(source, config, process=0, processes=1, start=0):
  """All images once, in order, the last batch filled up with rows of weight 0. Unreadable ones weigh 0 too.

  Args:
    source: a Source of ctx_flax.data.sources.
    config: uses eval.{batch_size, crop_ratio} and data.
    process, processes: as for `train_batches`; every process makes the same number of batches.
    start: the number of the first batch, from 0.

  Returns:
    Batches, to be closed. They raise what those of `train_batches` do.
  """
  check_settings(config)
  total = config.eval.batch_size
  size = _share(total, process, processes, 'eval')
  rows = -(-len(source) // total) * total
  element = EvalElement(source, transforms.eval_transform(config), config.data.on_bad_image)
  elements = grain.MapDataset.range(rows).map(element)
  return _iterate(OwnRows(elements, total, size, process).batch(size)[start:], config.data)


def describe_bad(source, index, config):
  """'NAME: reason' of an image that cannot be read."""
  try:
    transforms.eval_transform(config)(source[index])
  except (BadImage, OSError) as error:
    return f'{source.name(index)}: {_reason(error)}'
  return f'{source.name(index)}: can be read now'


@dataclasses.dataclass(frozen=True)
class TrainElement:
  """(index, np.random.Generator) -> one row of a batch."""

  source: Any
  transform: transforms.TrainTransform
  on_bad_image: str

  def __call__(self, index, rng):
    for further in range(min(BAD_IN_A_ROW, len(self.source))):
      chosen = (index + further) % len(self.source)
      try:
        element = self.source[chosen]
        return _row(self.transform(element, rng), element['label'], bad=index if further else -1)
      except (BadImage, OSError) as error:
        if self.on_bad_image == 'error':
          raise _as_error(self.source, chosen, error) from error
    raise BadImage(
      f'{min(BAD_IN_A_ROW, len(self.source))} images in a row from {self.source.name(index)} on cannot be '
      'read: check data.path'
    )


@dataclasses.dataclass(frozen=True)
class EvalElement:
  """Index -> one row of a batch; indices from len(source) on are filling rows."""

  source: Any
  transform: transforms.EvalTransform
  on_bad_image: str

  def __call__(self, index):
    bad = -1
    if index < len(self.source):
      try:
        element = self.source[index]
        return _row(self.transform(element), element['label'])
      except (BadImage, OSError) as error:
        if self.on_bad_image == 'error':
          raise _as_error(self.source, index, error) from error
        bad = index
    size = self.transform.image_size
    return _row(np.zeros((size, size, 3), np.float32), 0, weight=0, bad=bad)


class OwnRows(grain.MapDataset):
  """The rows of every batch that one of several processes makes: a contiguous part of equal size."""

  def __init__(self, elements, total, size, process):
    super().__init__(elements)
    self._total, self._size, self._first = total, size, size * process

  def __len__(self):
    return len(self._parent) // self._total * self._size

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    batch, row = divmod(index, self._size)
    return self._parent[batch * self._total + self._first + row]


def _row(image, label, weight=1, bad=-1):
  return {
    'image': image,
    'label': np.int32(label),
    'weight': np.float32(weight),
    'bad': np.int32(bad),
  }


def _share(total, process, processes, field):
  if total % processes:
    raise ValueError(f'{field}.batch_size is {total}: it must be a multiple of the {processes} processes')
  if not 0 <= process < processes:
    raise ValueError(f'process must be between 0 and {processes - 1}, but is {process}')
  return total // processes


def _iterate(batches, data):
  # In units of batches, which are large: one for each thread, and one from each worker that waits.
  options = grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=data.threads)
  if not data.workers:
    return Batches(iter(batches.to_iter_dataset(options)))
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain reads its own, and who imports us need not use absl
  prefix = shared_memory.new_prefix()
  put = functools.partial(shared_memory.put, prefix=prefix)
  dataset = batches.map_with_index(put).to_iter_dataset(options)
  processes = grain.MultiprocessingOptions(num_workers=data.workers, per_worker_buffer_size=1)
  dataset = dataset.mp_prefetch(processes, worker_init_fn=_start_worker)
  # A worker has one batch in every thread and one behind each, and a few wait on the way: counted amply.
  return SharedBatches(iter(dataset), prefix, ahead=data.workers * (2 * data.threads + 10))


class Batches:
  """An iterator of batches. `close` ends its threads and worker processes, and gives all memory back."""

  def __init__(self, iterator):
    self._iterator = iterator

  def __iter__(self):
    return self

  def __next__(self):
    return next(self._iterator)

  def close(self):
    iterator, self._iterator = self._iterator, iter(())
    if hasattr(iterator, 'close'):  # else it was closed before
      iterator.close()


class SharedBatches(Batches):
  """Batches that come from workers in shared memory, of which up to `ahead` were made and not taken yet."""

  def __init__(self, iterator, prefix, ahead):
    super().__init__(iterator)
    self._prefix, self._ahead = prefix, ahead
    self._taken = 0

  def __next__(self):
    handle = super().__next__()
    self._taken += 1
    return handle.take()

  def close(self):
    super().close()
    shared_memory.give_back(self._prefix, range(self._taken, self._taken + self._ahead))
    # grain's iterators refer to each other in circles, which keep the semaphores of their queues.
    gc.collect()


def _start_worker(*_):
  """What a worker process does first: it outlives signals, which its parent answers, but never its parent."""
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
  parent = multiprocessing.parent_process()
  if parent is not None:
    parent.join()
    os._exit(1)


def _as_error(source, index, error):
  return BadImage(
    f'{source.name(index)} cannot be read: {_reason(error)}; data.on_bad_image=skip goes on without it'
  )


def _reason(error):
  return ' '.join(str(error.strerror if isinstance(error, OSError) and error.strerror else error).split())
