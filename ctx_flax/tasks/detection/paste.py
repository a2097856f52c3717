"""Masks of detections on their images: 28x28 probabilities -> pixels -> run-length codes.

Axes: n detections, h w pixels of the image, i j pixels of a predicted mask. On the host, in numpy.
Source: MMDetection 2.11, FCNMaskHead.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

THRESHOLD = 0.5  # the probability from which a pixel belongs to the object


def paste_mask(
  mask: np.ndarray, box: np.ndarray, hw: Sequence[int], threshold: float = THRESHOLD
) -> np.ndarray:
  """The mask of a detection on its image.

  The pixel (y, x) has its centre at (y + 0.5, x + 0.5). The mask's own pixels share the box evenly; between
  their centres it is bilinear, and it falls to zero within one of them beyond the outermost.

  Args:
    mask: float (i, j), probabilities.
    box: (4,), x1 y1 x2 y2 in pixels of the image; may reach beyond it.
    hw: height and width of the image.
    threshold: a pixel is set from this probability on.

  Returns:
    bool (h, w), in Fortran's order; nothing is set for a box without width or height, or beside the image.
  """
  h, w = (int(side) for side in hw)
  pasted = np.zeros((w, h), bool).T
  x1, y1, x2, y2 = np.asarray(box, np.float32)
  i, j = mask.shape
  top, row_weights = _interpolation(y1, y2, h, i)
  left, column_weights = _interpolation(x1, x2, w, j)
  # Not matmul: for products of this size, the threads of BLAS cost more than they save.
  rows = np.einsum('hi,ij->hj', row_weights, np.asarray(mask, np.float32))
  values = np.einsum('hj,wj->hw', rows, column_weights)
  pasted[top : top + values.shape[0], left : left + values.shape[1]] = values >= np.float32(threshold)
  return pasted


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
  """The run-length code of a mask, bool (h, w), as COCO's tools have it: {'size': [h, w], 'counts': str}."""
  from pycocotools import mask as coco_mask

  code = coco_mask.encode(np.asfortranarray(mask).view(np.uint8))
  return {'size': list(mask.shape), 'counts': code['counts'].decode('ascii')}


def _interpolation(first: Any, last: Any, size: int, pixels: int) -> tuple[int, np.ndarray]:
  """How one side of a mask is read off by the pixels of an image's side that a box may touch.

  Returns:
    (the first of these pixels, weights of the mask's pixels, float32 (k, pixels)).
  """
  if not last > first:  # neither a side of no length, which MMDetection paints across the image, nor NaN
    return 0, np.zeros((0, pixels), np.float32)
  # With a pixel of margin: rounding may carry a centre over the border of the box.
  start = int(np.clip(np.floor(first) - 1, 0, size))
  stop = int(np.clip(np.ceil(last) + 1, start, size))
  centres = np.arange(start, stop, dtype=np.float32) + np.float32(0.5)
  places = (centres - first) / (last - first) * np.float32(pixels) - np.float32(0.5)
  distances = np.abs(places[:, None] - np.arange(pixels, dtype=np.float32)[None])
  return start, np.maximum(np.float32(1) - distances, np.float32(0))
