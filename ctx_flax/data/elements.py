"""Rows of a batch from the elements of a source, and what stands in for one that cannot be read.

Each row gets two entries more than its function returns:
  'weight' float32: 1 for elements, 0 for rows that only fill up a batch;
  'bad' int32: the index of the unreadable element that stood in this place, -1 if none did.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ctx_flax.data.batches import Row
from ctx_flax.data.decode import BadImage
from ctx_flax.data.image_files import counted
from ctx_flax.data.sources import Source
from ctx_flax.files import printable

BAD_IN_A_ROW = 100  # so many unreadable elements are no accident


@dataclasses.dataclass(frozen=True)
class TrainElement:
  """(index, np.random.Generator) -> one row of a batch, for batches.train_batches.

  An element that cannot be read is replaced by the next good one.

  Attributes:
    source: of the elements.
    row: (element, np.random.Generator) -> {name: array}. BadImage and OSError say that it cannot be read.
    on_bad_image: 'skip' as said, or 'error'.
    noun: what messages call an element.
  """

  source: Source
  row: Callable[[dict[str, Any], np.random.Generator], Row]
  on_bad_image: str
  noun: str = 'image'

  def __call__(self, index: int, rng: np.random.Generator) -> Row:
    n = len(self.source)
    row = lambda element: self.row(element, rng)
    candidates = (((index + further) % n, row) for further in range(n))
    return first_good(self.source, candidates, self.on_bad_image, self.noun)


@dataclasses.dataclass(frozen=True)
class EvalElement:
  """Index -> one row of a batch, for batches.eval_batches; indices from len(source) on are filling rows.

  Attributes:
    source: of the elements.
    row: element -> {name: array}. BadImage and OSError say that it cannot be read.
    filling: () -> the row, of weight 0, that stands for an unreadable element and fills up the last batch.
    on_bad_image: 'skip': such elements have weight 0; or 'error'.
  """

  source: Source
  row: Callable[[dict[str, Any]], Row]
  filling: Callable[[], Row]
  on_bad_image: str

  def __call__(self, index: int) -> Row:
    bad = -1
    if index < len(self.source):
      try:
        return _weighted(self.row(self.source[index]))
      except (BadImage, OSError) as error:
        if self.on_bad_image == 'error':
          raise _as_error(self.source, index, error) from error
        bad = index
    return _weighted(self.filling(), weight=0, bad=bad)


def first_good(
  source: Source,
  candidates: Iterable[tuple[int, Callable[[dict[str, Any]], Row]]],
  on_bad_image: str,
  noun: str,
) -> Row:
  """The row of the first element that can be read.

  Args:
    source: of the elements.
    candidates: (index, element -> {name: array}) of those that may stand in one place, the best first.
    on_bad_image, noun: see TrainElement.

  Raises:
    BadImage: none can be read, or BAD_IN_A_ROW cannot, or one where on_bad_image is 'error'.
  """
  bad: list[int] = []
  first = ''
  for index, row in itertools.islice(candidates, BAD_IN_A_ROW):
    try:
      return _weighted(row(source[index]), bad=bad[0] if bad else -1)
    except (BadImage, OSError) as error:
      if on_bad_image == 'error':
        raise _as_error(source, index, error) from error
      first = first or printable(str(error))  # with the whole path, if it is an error of the file system
      bad.append(index)
  raise BadImage(
    f'{counted(len(bad), noun)} in a row from {printable(source.name(bad[0]))} on cannot be read: check '
    f'data.path; the first: {first}'
  )


def describe_bad(source: Source, index: int, transform: Callable[[dict[str, Any]], Any]) -> str:
  """'NAME: reason' of an element that a transform cannot read, on one line of valid UTF-8."""
  try:
    transform(source[index])
  except (BadImage, OSError) as error:
    return printable(f'{source.name(index)}: {_reason(error)}')
  return f'{printable(source.name(index))}: can be read now'


def _weighted(row: Row, weight: float = 1, bad: int = -1) -> Row:
  return {**row, 'weight': np.float32(weight), 'bad': np.int32(bad)}


def _as_error(source: Source, index: int, error: Exception) -> BadImage:
  name = printable(source.name(index))
  return BadImage(f'{name} cannot be read: {_reason(error)}; data.on_bad_image=skip goes on without it')


def _reason(error: Exception) -> str:
  return printable(
    ' '.join(str(error.strerror if isinstance(error, OSError) and error.strerror else error).split())
  )
