"""Batches that pass from worker processes in shared memory, none of which stays behind.

grain would pass them so by itself, but it gives their memory back from a thread and when Python's garbage
collection comes to it: a process that ends before leaves some of it to the operating system.
"""

import contextlib
import dataclasses
import secrets
from collections.abc import Iterable, Iterator
from multiprocessing.shared_memory import SharedMemory

import numpy as np


def new_prefix() -> str:
  """What the names of one iterator's pieces of memory begin with; macOS allows 30 letters in all."""
  return f'ctx-{secrets.token_hex(6)}'


def put(index: int, batch: dict[str, np.ndarray], prefix: str) -> 'Handle':
  """The Handle of a batch, {name: array}, that it copies to shared memory: what a worker does."""
  name = _name(prefix, index)
  memory = SharedMemory(name, create=True, size=max(1, sum(array.nbytes for array in batch.values())))
  handle = Handle(name, tuple((name, array.shape, array.dtype) for name, array in batch.items()))
  for name, view in handle.views(memory):
    view[...] = batch[name]
  memory.close()
  return handle


@dataclasses.dataclass(frozen=True)
class Handle:
  """Where a batch lies in shared memory; small enough to be sent.

  Attributes:
    name: of the memory.
    arrays: (name, shape, dtype) of each array, one behind the other.
  """

  name: str
  arrays: tuple

  def views(self, memory: SharedMemory) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array in the memory) of each."""
    offset = 0
    for name, shape, dtype in self.arrays:
      view = np.ndarray(shape, dtype, buffer=memory.buf, offset=offset)
      offset += view.nbytes
      yield name, view

  def take(self) -> dict[str, np.ndarray]:
    """The batch in memory of its own, which jax may keep; the shared memory is given back."""
    with _given_back(self.name) as memory:
      return {name: view.copy() for name, view in self.views(memory)}


def give_back(prefix: str, indices: Iterable[int]) -> None:
  """Gives back the memory of the batches with these indices that lie there: nobody will take them."""
  for index in indices:
    with contextlib.suppress(FileNotFoundError), _given_back(_name(prefix, index)):
      pass


def _name(prefix, index):
  return f'{prefix}-{index}'


@contextlib.contextmanager
def _given_back(name):
  memory = SharedMemory(name)
  try:
    yield memory
  finally:
    memory.close()
    memory.unlink()
