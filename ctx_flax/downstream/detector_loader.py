"""Runs an exported detector: this file is its load.py. Needs jax, numpy and flatbuffers alone.

network, about = load(FOLDER)
(objects,) = detect(network, about, [image])
"""

import functools
import json

import jax
import jax.export
import numpy as np

TYPES = {'F32': np.float32, 'F16': np.float16, 'BF16': jax.numpy.bfloat16}
ONE = 2048  # of the weights of a pixel, which are whole numbers


def load(folder):
  """(network, about) of a folder.

  Returns:
    network: (image uint8 (b, h, w, 3), image_hw int32 (b, 2), scale float32 (b, 2)) -> {'boxes', 'scores',
      'labels', 'valid', 'masks', 'overflow'}, with the b, h, w that it was exported for; see README.md.
    about: {'class_names': [...], 'canvas': [h, w], 'batch_size': b, ...}.
  """
  with open(f'{folder}/weights.safetensors', 'rb') as file:
    header, data = json.loads(file.read(int.from_bytes(file.read(8), 'little'))), file.read()
  with open(f'{folder}/network.stablehlo', 'rb') as file:
    network = jax.export.deserialize(bytearray(file.read()))
  about = header.pop('__metadata__')
  part = lambda x: np.frombuffer(data[slice(*x['data_offsets'])], TYPES[x['dtype']]).reshape(x['shape'])
  weights = {name: part(x) for name, x in header.items()}
  known = {name: json.loads(text) for name, text in about.items() if name != 'format'}
  return functools.partial(jax.jit(network.call), jax.device_put(weights)), known


def detect(network, about, images):
  """The objects in images of any sizes that fit the canvas, a call of the network for every batch of them.

  Args:
    network, about: of `load`.
    images: uint8 (h, w, 3), RGB.

  Returns:
    For every image a list of {'class': name, 'label': int, 'score': float, 'box': [x1, y1, x2, y2] in pixels
    of the image, 'mask': bool (h, w)}, by falling score.

  Raises:
    ValueError: an image that is no such array, or is larger than the canvas when it is resized.
  """
  size = about['batch_size']
  prepared = [prepare(image, about, f'image {number}') for number, image in enumerate(images)]
  found = []
  for first in range(0, len(images), size):
    rows = prepared[first : first + size]
    filled = rows + [rows[-1]] * (size - len(rows))
    batch = {name: np.stack([row[name] for row in filled]) for name in rows[0]}
    out = network(batch['image'], batch['image_hw'], batch['scale'])
    out = {name: np.asarray(value) for name, value in out.items()}
    for row, image in enumerate(images[first : first + size]):
      found.append(
        [
          {
            'class': about['class_names'][out['labels'][row, n]],
            'label': int(out['labels'][row, n]),
            'score': float(out['scores'][row, n]),
            'box': out['boxes'][row, n].tolist(),
            'mask': paste(out['masks'][row, n], out['boxes'][row, n], image.shape[:2]),
          }
          for n in np.flatnonzero(out['valid'][row])
        ]
      )
  return found


def prepare(image, about, name='the image'):
  """What the network takes of an image: {'image' on its canvas, 'image_hw' there, 'scale'}.

  It is resized as in the detector's tests: its short side to about['short_side'], unless the long one would
  exceed about['long_side'].
  """
  if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,)):
    raise ValueError(f'{name} must be an array uint8 (h, w, 3), RGB')
  hw = np.array(image.shape[:2])
  if not hw.all():
    raise ValueError(f'{name} has {hw[0]} x {hw[1]} pixels: it is empty')
  factor = min(about['long_side'] / hw.max(), about['short_side'] / hw.min())
  resized = np.maximum((hw * factor + 0.5).astype(np.int32), 1)
  canvas = np.zeros((*about['canvas'], 3), np.uint8)
  if (resized > canvas.shape[:2]).any():
    raise ValueError(
      f'{name} has {hw[0]} x {hw[1]} pixels (height x width), resized {resized[0]} x {resized[1]}, and the '
      f'canvas {canvas.shape[0]} x {canvas.shape[1]}: export another one, --config.export.canvas=(H,W)'
    )
  canvas[: resized[0], : resized[1]] = resize(image, resized)
  return {'image': canvas, 'image_hw': resized, 'scale': (resized / hw).astype(np.float32)}


def resize(image, hw):
  """Bilinear, not antialiased: the pixels of OpenCV's cv2.resize but for a few that differ by 1."""
  rows, columns = (_neighbours(n, int(m)) for n, m in zip(image.shape, hw, strict=False))
  first, second = (
    image[:, places].astype(np.int32) * weights[None, :, None]
    for places, weights in zip(columns[:2], columns[2:], strict=True)
  )
  lines = (first + second) >> 4
  first, second = (
    lines[places] * weights[:, None, None] >> 16 for places, weights in zip(rows[:2], rows[2:], strict=True)
  )
  return ((first + second + 2) >> 2).astype(np.uint8)


def _neighbours(n, m):
  """The two of n pixels that each of m lies between, and their weights: four int arrays (m,)."""
  place = (np.arange(m) + 0.5) * (n / m) - 0.5
  place = np.clip(place, 0, n - 1).astype(np.float32)
  first = np.minimum(np.floor(place).astype(np.int32), n - 1)
  second = np.rint((place - first) * ONE).astype(np.int32)
  return first, np.minimum(first + 1, n - 1), ONE - second, second


def paste(mask, box, hw, threshold=0.5):
  """The mask of an object on its image.

  Args:
    mask: float (28, 28), probabilities that share the box evenly.
    box: (4,), x1 y1 x2 y2 in pixels of the image.
    hw: (h, w) of the image.
    threshold: a pixel is set from this probability on.

  Returns:
    bool (h, w).
  """
  sides = []
  for low, high, size, pixels in zip(box[1::-1], box[:1:-1], hw, mask.shape, strict=True):
    centres = np.arange(size, dtype=np.float32) + np.float32(0.5)
    if not high > low:
      return np.zeros(hw, bool)
    places = (centres - low) / (high - low) * np.float32(pixels) - np.float32(0.5)
    sides.append(np.maximum(1 - np.abs(places[:, None] - np.arange(pixels, dtype=np.float32)), 0))
  return sides[0] @ mask @ sides[1].T >= threshold
