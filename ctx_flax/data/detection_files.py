"""Image files of any size, made ready for a detector one by one, as images of a test are."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctx_flax.data import batches, canvases, detection_draws, detection_transforms, elements
from ctx_flax.data.batches import Batches, Row
from ctx_flax.data.file_source import FileSource


def source_of_files(files: Sequence[str]) -> FileSource:
  """A source of files that no annotation file lists."""
  return FileSource('', files, np.zeros(len(files)), ())


def file_batches(source: FileSource, config: Any, pixels: bool = False) -> Batches:
  """Batches of one image each, in order, without objects; unreadable ones weigh 0.

  An image has the smallest canvas that holds it, so that as many programs are compiled as there are canvases
  of data.canvases in both orientations; one that none holds has a canvas of its own.

  Args:
    source: of `source_of_files`.
    config: uses eval.short_side and data.
    pixels: batches hold 'pixels', too, uint8 (1, h, w, 3) of the image as it is in its file.

  Returns:
    Batches as those of ctx_flax.data.detection_pipeline.eval_batches, to be closed.
  """
  config = config.copy_and_resolve_references()
  config.eval.batch_size = 1
  sizes = canvases.both_orientations(config.data.canvases)
  element = FileElement(source, config.eval.short_side, config.data.long_side, sizes, pixels)
  return batches.eval_batches(element, len(source), config)


def canvas_of(hw: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  """The smallest canvas of some sizes (k, 2) that holds (h, w), or (h, w) padded alone: int (2,)."""
  number = int(canvases.smallest_canvas(hw, sizes))
  return sizes[number] if number >= 0 else -(-hw // canvases.STRIDE) * canvases.STRIDE


def describe_bad(source: FileSource, index: int) -> str:
  """'NAME: reason' of an image that cannot be read."""
  return elements.describe_bad(source, index, detection_transforms.read_image)


@dataclasses.dataclass(frozen=True)
class FileElement:
  """Number of a file -> its row.

  Attributes:
    source: of the files.
    short, long: sides that images are resized to, see detection_draws.resized_hw.
    sizes: int (k, 2), the canvases.
    pixels: whether rows of images that can be read hold 'pixels', as in the file.
  """

  source: FileSource
  short: int
  long: int
  sizes: np.ndarray
  pixels: bool = False

  def __call__(self, index: int) -> Row:
    def row(element: dict[str, Any]) -> Row:
      pixels = detection_transforms.read_image(element)
      hw = detection_draws.resized_hw(np.array(pixels.shape[:2]), self.short, self.long)
      made = detection_transforms.resized_row(pixels, index, hw, canvas_of(hw, self.sizes))
      return {**made, 'pixels': pixels} if self.pixels else made

    filling = lambda: detection_transforms.blank_row(self.sizes[0])
    return elements.EvalElement(self.source, row, filling, 'skip')(index)
