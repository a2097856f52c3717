"""Which images stand in which batch, as it follows from their sizes, the settings and the seed alone.

All images of a batch have one canvas. Nothing is read to make a plan: every process and every worker makes
the same one by itself.
"""

import bisect
import dataclasses
import functools
import threading
from collections.abc import Iterator

import numpy as np

from ctx_flax.data import canvases
from ctx_flax.data.detection_draws import DRAW, Augmentation, resized_hw

CACHED = 2  # epochs: threads stand on both sides of the end of one


@dataclasses.dataclass(frozen=True)
class Epoch:
  """The batches of an epoch.

  Attributes:
    draws: of dtype DRAW (n,), of all images in their order.
    batches: of dtype DRAW (m, b).
    canvases: int (m,), the number of each batch's canvas.
    waiting: of dtype DRAW (w,), images whose batch comes in a later epoch.
  """

  draws: np.ndarray
  batches: np.ndarray
  canvases: np.ndarray
  waiting: np.ndarray


class TrainPlan:
  """Endless batches in which every image is used once an epoch.

  An epoch draws flip, sizes and crop of each image, shuffles the images, fills batches of each canvas, and
  shuffles the batches. Images that fill no batch of their canvas wait, and go before those of the next epoch:
  none is used more often than others, and at any time fewer than a batch of each canvas wait. MMDetection
  2.11 repeats images of an epoch instead, to fill its batches.

  Args:
    hw: int (n, 2), sizes of the images.
    augmentation: what is drawn.
    sizes: int (k, 2), the canvases.
    batch_size: of all processes together.
    seed: of the run.
  """

  def __init__(
    self, hw: np.ndarray, augmentation: Augmentation, sizes: np.ndarray, batch_size: int, seed: int
  ) -> None:
    self._arguments = hw, augmentation, sizes, batch_size, seed
    self.hw, self.augmentation, self.canvases, self.batch_size, self.seed = self._arguments
    # Of every epoch that was come to: its first step, and the images that waited when it began.
    self._starts, self._waiting = [0], [np.zeros(0, DRAW)]
    self._epochs = functools.lru_cache(CACHED)(self._epoch)
    self._lock = threading.Lock()

  def __reduce__(self) -> tuple:
    return TrainPlan, self._arguments

  def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
    """(draws of dtype DRAW (b,), canvas (h, w)) of a step."""
    epoch, place = self._find(step)
    return epoch.batches[place], self.canvases[epoch.canvases[place]]

  def candidates(self, step: int, row: int) -> Iterator[np.void]:
    """Yields the draw of a row of a step, then what may replace it: the following images, if they fit."""
    epoch, place = self._find(step)
    draw = epoch.batches[place, row]
    yield draw
    fits = (epoch.draws['hw'] <= self.canvases[epoch.canvases[place]]).all(axis=-1)
    fits[draw['index']] = False
    others = np.flatnonzero(np.roll(fits, -int(draw['index'])))
    for further in others:
      yield epoch.draws[(draw['index'] + further) % len(fits)]

  def epoch(self, number: int) -> tuple[int, Epoch]:
    """(first step, Epoch) of an epoch."""
    with self._lock:
      while len(self._starts) <= number:
        self._go_on()
      return self._starts[number], self._epochs(number)

  def _find(self, step: int) -> tuple[Epoch, int]:
    """(the epoch that a step belongs to, which of its batches it is)."""
    with self._lock:
      while self._starts[-1] <= step:
        self._go_on()
      number = bisect.bisect_right(self._starts, step) - 1
      return self._epochs(number), step - self._starts[number]

  def _go_on(self) -> None:
    epoch = self._epochs(len(self._starts) - 1)
    self._starts.append(self._starts[-1] + len(epoch.batches))
    self._waiting.append(epoch.waiting)

  def _epoch(self, number: int) -> Epoch:
    rng = np.random.default_rng((self.seed, number))
    draws = self.augmentation.draw(rng, self.hw)
    shuffled = np.concatenate([self._waiting[number], draws[rng.permutation(len(draws))]])
    chosen = canvases.smallest_canvas(shuffled['hw'], self.canvases)
    order = np.argsort(chosen, kind='stable')
    shuffled, chosen = shuffled[order], chosen[order]
    # The place of each among those of its canvas; the last of these wait.
    counts = np.bincount(chosen, minlength=len(self.canvases))
    place = np.arange(len(chosen)) - np.repeat(np.cumsum(counts) - counts, counts)
    used = place < (counts - counts % self.batch_size)[chosen]
    batches = shuffled[used].reshape(-1, self.batch_size)
    order = rng.permutation(len(batches))
    numbers = chosen[used].reshape(batches.shape)[order, 0] if len(batches) else np.zeros(0, int)
    return Epoch(draws, batches[order], numbers, shuffled[~used])


@dataclasses.dataclass(frozen=True)
class EvalPlan:
  """All images once: those of each canvas in order, its last batch filled up.

  Attributes:
    hw: int (n, 2), sizes of the images in a batch.
    canvases: int (k, 2).
    images: int (m,), which image each row is; -1 for rows that fill up.
    numbers: int (m,), the number of each row's canvas.
  """

  hw: np.ndarray
  canvases: np.ndarray
  images: np.ndarray
  numbers: np.ndarray


def eval_plan(hw: np.ndarray, short: int, long: int, sizes: np.ndarray, batch_size: int) -> EvalPlan:
  """The EvalPlan of images of sizes (n, 2), each of which fits into a canvas of `sizes` when resized."""
  resized = resized_hw(hw, short, long)
  chosen = canvases.smallest_canvas(resized, sizes)
  images, numbers = [], []
  for number in range(len(sizes)):
    own = np.flatnonzero(chosen == number)
    filled = -(-len(own) // batch_size) * batch_size
    images += [own, np.full(filled - len(own), -1)]
    numbers.append(np.full(filled, number))
  return EvalPlan(resized, sizes, np.concatenate(images), np.concatenate(numbers))
