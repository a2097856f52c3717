"""Batches of any kind of rows, made on grain: shuffled for training, in order for evaluation.

A row is what an element function returns, {name: array}; a batch stacks the arrays of its rows. The batch of
a training step depends on the seed and the step alone: not on where a run began, nor on the number of
threads, worker processes or processes that share the batch, each of which makes its own rows of it.
"""

import functools
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import numpy as np
from absl import flags

from ctx_flax.data import shared_memory

ENDLESS = 2**62  # rows
Row = Mapping[str, Any]  # {name: array}, the same names and shapes in every row


def check_settings(config: Any) -> None:
  """Raises ValueError for a field that no batch of any kind can be made with."""
  for field, size in (('train', config.train.batch_size), ('eval', config.eval.batch_size)):
    if size < 1:
      raise ValueError(f'{field}.batch_size must be 1 or more, but is {size}')
  for name in ('threads', 'workers', 'prefetch'):
    if config.data[name] < 0:
      raise ValueError(f'data.{name} must be 0 or more, but is {config.data[name]}')
  if not 0 <= config.seed < 2**32:
    raise ValueError(f'seed must be between 0 and 2**32 - 1, but is {config.seed}')


def train_batches(
  element: Callable[[int, np.random.Generator], Row],
  length: int,
  config: Any,
  start: int = 0,
  process: int = 0,
  processes: int = 1,
  *,
  mix: Callable[[dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray]] | None = None,
) -> 'Batches':
  """Endless batches for the steps start, start + 1, ... of a run.

  Every epoch is shuffled and augmented anew; a batch may hold the end of one epoch and the start of the
  next, so that every element is used equally often.

  Args:
    element: (index, generator) -> row; it pickles into worker processes. All of its randomness comes from
      the generator.
    length: the number of elements; indices are 0 to length - 1.
    config: uses seed, train.batch_size (of all processes together) and data.{threads, workers}.
    start: the step of the first batch.
    process, processes: which rows are made here: part `process` of `processes` equal ones.
    mix: (batch, generator) -> batch, applied to the rows of this process; the generator is the same in all.

  Returns:
    Batches, to be closed: that ends the worker processes. They raise what `element` does.

  Raises:
    ValueError: a setting is wrong, or the processes cannot share a batch.
  """
  check_settings(config)
  size = _share(config.train.batch_size, process, processes, 'train')
  elements = grain.MapDataset.range(length).seed(config.seed).shuffle().repeat(None).random_map(element)
  # Before to_iter_dataset, else the make-up of a batch depends on the number of threads and workers.
  batches = OwnRows(elements, config.train.batch_size, size, process).batch(size)
  if mix is not None:
    batches = batches.seed(config.seed).random_map(mix)
  return iterate(batches[start:], config.data)


def planned_batches(
  element: Callable[[int], Row], config: Any, start: int = 0, process: int = 0, processes: int = 1
) -> 'Batches':
  """Endless batches as a plan lays them out: row i of step s is element(s * train.batch_size + i).

  Args:
    element: number of a row -> row; it pickles into worker processes. Rows of a step have the same shapes.
    config: uses train.batch_size (of all processes together) and data.{threads, workers}.
    start, process, processes: as for `train_batches`.

  Returns:
    Batches, to be closed. They raise what `element` does.

  Raises:
    ValueError: a setting is wrong, or the processes cannot share a batch.
  """
  check_settings(config)
  total = config.train.batch_size
  size = _share(total, process, processes, 'train')
  rows = grain.MapDataset.range(ENDLESS).map(element)
  return iterate(OwnRows(rows, total, size, process).batch(size)[start:], config.data)


def eval_batches(
  element: Callable[[int], Row],
  length: int,
  config: Any,
  process: int = 0,
  processes: int = 1,
  start: int = 0,
) -> 'Batches':
  """All elements once, in order, the last batch filled up.

  Args:
    element: index -> row; it pickles into worker processes. Indices from `length` on ask for a filling row,
      which has the same names and shapes.
    length: the number of elements.
    config: uses eval.batch_size (of all processes together) and data.{threads, workers}.
    process, processes: as for `train_batches`; every process makes the same number of batches.
    start: the number of the first batch, from 0.

  Returns:
    Batches, to be closed. They raise what `element` does.

  Raises:
    ValueError: a setting is wrong, or the processes cannot share a batch.
  """
  check_settings(config)
  total = config.eval.batch_size
  size = _share(total, process, processes, 'eval')
  elements = grain.MapDataset.range(-(-length // total) * total).map(element)
  return iterate(OwnRows(elements, total, size, process).batch(size)[start:], config.data)


class OwnRows(grain.MapDataset):
  """The rows of every batch that one of several processes makes: a contiguous part of equal size."""

  def __init__(self, elements: Any, total: int, size: int, process: int) -> None:
    super().__init__(elements)
    self._total, self._size, self._first = total, size, size * process

  def __len__(self) -> int:
    return len(self._parent) // self._total * self._size

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return self.slice(index)
    batch, row = divmod(index, self._size)
    return self._parent[batch * self._total + self._first + row]


def _share(total: int, process: int, processes: int, field: str) -> int:
  if total % processes:
    raise ValueError(f'{field}.batch_size is {total}: it must be a multiple of the {processes} processes')
  if not 0 <= process < processes:
    raise ValueError(f'process must be between 0 and {processes - 1}, but is {process}')
  return total // processes


def iterate(batches: Any, data: Any) -> 'Batches':
  """Iterates over a grain.MapDataset of batches: data.threads threads in each of data.workers processes."""
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

  def __init__(self, iterator: Iterator[Any]) -> None:
    self._iterator = iterator

  def __iter__(self) -> 'Batches':
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    return next(self._iterator)

  def close(self) -> None:
    iterator, self._iterator = self._iterator, iter(())
    if hasattr(iterator, 'close'):  # else it was closed before
      iterator.close()


class SharedBatches(Batches):
  """Batches that come from workers in shared memory, of which up to `ahead` were made and not taken yet."""

  def __init__(self, iterator: Iterator[Any], prefix: str, ahead: int) -> None:
    super().__init__(iterator)
    self._prefix, self._ahead = prefix, ahead
    self._taken = 0

  def __next__(self) -> dict[str, np.ndarray]:
    handle: Any = super().__next__()
    self._taken += 1
    return handle.take()

  def close(self) -> None:
    super().close()
    shared_memory.give_back(self._prefix, range(self._taken, self._taken + self._ahead))
    # grain's iterators refer to each other in circles, which keep the semaphores of their queues.
    gc.collect()


def _start_worker(*_: Any) -> None:
  """What a worker process does first: it outlives signals, which its parent answers, but never its parent."""
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  parent = multiprocessing.parent_process()
  if parent is not None:
    parent.join()
    os._exit(1)
