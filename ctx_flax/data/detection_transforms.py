"""What happens to one image and its objects, from the file to a row of a batch. NumPy, OpenCV and Pillow.

Images are resized as MMDetection does it, by OpenCV's bilinear filter, which is not antialiased, and masks by
its nearest neighbour. Pixels stay bytes: what sends them to a device normalises them there.

A row:
  'image' uint8 (h, w, 3) of the canvas, 0 below and to the right of the image;
  'image_hw', 'original_hw' int32 (2,): sizes of the image there and in its file;
  'scale' float32 (2,): (y, x) factors from the one to the other, of the same pixels if the image is cropped;
  'index' int32: of the image in the source;
and of training images, for g = data.max_objects:
  'boxes' float32 (g, 4): (x1, y1, x2, y2) in pixels of the canvas;
  'labels' int32 (g,): -1 where there is no object;
  'masks' uint8 (g, h, w / 8): bits, packed along w, the highest first.
"""

from typing import Any

import numpy as np

from ctx_flax.data import decode
from ctx_flax.data.batches import Row
from ctx_flax.data.decode import BadImage


def read_image(element: dict[str, Any]) -> np.ndarray:
  """uint8 (h, w, 3), RGB, upright, of an element of a source.

  Raises:
    BadImage: it cannot be read, or has another size than the annotation file says, if one does.
  """
  image = decode.open_image(element)
  w, h = image.size
  if 'objects' in element and (h, w) != element['objects'].hw:
    other_h, other_w = element['objects'].hw
    raise BadImage(f'{w} x {h} pixels, but the annotation file says {other_w} x {other_h}')
  return np.asarray(decode.cut(image, (0, 0, w, h), (w, h)).convert('RGB'))


def train_row(element: dict[str, Any], draw: np.void, canvas: np.ndarray, max_objects: int) -> Row:
  """A row of an image and its objects, as it was drawn.

  Args:
    element: of a source.
    draw: of dtype detection_draws.DRAW.
    canvas: (h, w).
    max_objects: objects beyond this number are left out.

  Raises:
    BadImage, OSError: the image or its masks cannot be read.
  """
  objects = element['objects']
  image = transform_pixels(read_image(element), draw, 'bilinear')
  boxes, kept = transform_boxes(objects.boxes, objects.hw, draw)
  kept = kept[:max_objects]
  n, width = len(kept), int(canvas[1])
  row = _image_row(image, canvas, objects.hw, _scale(objects.hw, draw), int(draw['index']))
  row |= {
    'boxes': np.zeros((max_objects, 4), np.float32),
    'labels': np.full(max_objects, -1, np.int32),
    'masks': np.zeros((max_objects, int(canvas[0]), width // 8), np.uint8),
  }
  row['boxes'][:n], row['labels'][:n] = boxes[:n], objects.labels[kept]
  for i, mask in enumerate(objects.masks(kept)):
    bits = np.packbits(transform_pixels(mask, draw, 'nearest'), axis=-1)
    row['masks'][i, : bits.shape[0], : bits.shape[1]] = bits
  return row


def eval_row(element: dict[str, Any], index: int, hw: np.ndarray, canvas: np.ndarray) -> Row:
  """A row of an image resized to (h, w), without its objects.

  Raises:
    BadImage, OSError: the image cannot be read.
  """
  return resized_row(read_image(element), index, hw, canvas)


def resized_row(pixels: np.ndarray, index: int, hw: np.ndarray, canvas: np.ndarray) -> Row:
  """A row of an image, uint8 of any size, resized to (h, w)."""
  original = pixels.shape[:2]
  scale = (hw / np.array(original)).astype(np.float32)
  return _image_row(_resize(pixels, hw, 'bilinear'), canvas, original, scale, index)


def blank_row(canvas: np.ndarray) -> Row:
  """What stands for an image that cannot be read, and fills up a batch: black, of index -1."""
  image = np.zeros((*map(int, canvas), 3), np.uint8)
  return _image_row(image, canvas, canvas, np.ones(2, np.float32), -1)


def transform_pixels(pixels: np.ndarray, draw: np.void, interpolation: str) -> np.ndarray:
  """Flips, resizes, crops and resizes an image (h, w, c) or a mask (h, w), as it was drawn."""
  if draw['flip']:
    pixels = pixels[:, ::-1]
  if draw['cropped']:
    pixels = _resize(pixels, draw['first_hw'], interpolation)
    top, left, h, w = draw['crop'].tolist()
    pixels = pixels[top : top + h, left : left + w]
  return _resize(pixels, draw['hw'], interpolation)


def transform_boxes(boxes: np.ndarray, hw: tuple[int, int], draw: np.void) -> tuple[np.ndarray, np.ndarray]:
  """What becomes of the boxes of an image.

  Args:
    boxes: float32 (n, 4), (x1, y1, x2, y2) in pixels.
    hw: of the image.
    draw: of dtype detection_draws.DRAW.

  Returns:
    (float32 (m, 4), int (m,), which of the boxes they are): all, or those that a crop leaves a part of.
  """
  kept = np.arange(len(boxes))
  if draw['flip']:
    x1, y1, x2, y2 = boxes.T
    boxes = np.stack([hw[1] - x2, y1, hw[1] - x1, y2], axis=-1)
  if draw['cropped']:
    boxes = _scaled(boxes, hw, draw['first_hw'])
    top, left, h, w = draw['crop'].tolist()
    boxes = boxes - np.array([left, top, left, top], np.float32)
    boxes = np.clip(boxes, 0, np.array([w, h, w, h], np.float32))
    kept = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    boxes, hw = boxes[kept], (h, w)
  return _scaled(boxes, hw, draw['hw']), kept


def _scaled(boxes: np.ndarray, old_hw: Any, new_hw: np.ndarray) -> np.ndarray:
  """Boxes of an image that is resized, clipped to it."""
  h, w = new_hw.tolist()
  factor = np.array([w / old_hw[1], h / old_hw[0]] * 2, np.float32)
  return np.clip(boxes * factor, 0, np.array([w, h, w, h], np.float32))


def _scale(hw: tuple[int, int], draw: np.void) -> np.ndarray:
  return (draw['first_hw'] / np.array(hw) * (draw['hw'] / draw['crop'][2:])).astype(np.float32)


def _resize(pixels: np.ndarray, hw: np.ndarray, interpolation: str) -> np.ndarray:
  import cv2

  h, w = hw.tolist()
  flags = {'bilinear': cv2.INTER_LINEAR, 'nearest': cv2.INTER_NEAREST}
  return cv2.resize(np.ascontiguousarray(pixels), (w, h), interpolation=flags[interpolation])


def _image_row(
  image: np.ndarray, canvas: np.ndarray, original_hw: Any, scale: np.ndarray, index: int
) -> dict[str, Any]:
  h, w = image.shape[:2]
  padded = np.zeros((*map(int, canvas), 3), np.uint8)
  padded[:h, :w] = image
  return {
    'image': padded,
    'image_hw': np.array([h, w], np.int32),
    'original_hw': np.asarray(original_hw, np.int32),
    'scale': scale,
    'index': np.int32(index),
  }
