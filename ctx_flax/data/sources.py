"""Where images come from: a table by name of functions (config.data, split) -> Source.

A source is random access: len(source) images, source[index] -> {'image': uint8 (h, w, 1 or 3), 'label': int},
in an order that never changes. Splits are 'train' and 'test'.
"""

import dataclasses

import numpy as np
from PIL import Image

SPLITS = ('train', 'test')


@dataclasses.dataclass(frozen=True)
class ArraySource:
  """Images that fit in memory: images uint8 (n, h, w, c), labels int (n,) below num_classes."""

  images: np.ndarray
  labels: np.ndarray
  num_classes: int

  def __len__(self):
    return len(self.images)

  def __getitem__(self, index):
    return {'image': self.images[index], 'label': self.labels[index]}


def digits(data, split):
  """scikit-learn's 1,797 handwritten digits, 8x8, enlarged (Pillow, bicubic) to data.image_size.

  They have no split of their own: data.split_seed draws data.test_images of them to test, each digit in
  proportion to its frequency. Resized once here: there is nothing random before it.
  """
  # Here and not at the top: importing scikit-learn takes a second that other data need not pay.
  from sklearn.datasets import load_digits
  from sklearn.model_selection import train_test_split

  images, labels = load_digits(return_X_y=True)
  if not 10 <= data.test_images <= len(labels) - 10:
    raise ValueError(
      f'data.test_images is {data.test_images}: of {len(labels)} digits, at least 10 and at most '
      f'{len(labels) - 10} can be kept to test'
    )
  train, test = train_test_split(
    np.arange(len(labels)), test_size=data.test_images, random_state=data.split_seed, stratify=labels
  )
  chosen = np.sort(train if split == 'train' else test)
  # Pixels count ink from 0 to 16.
  pixels = np.rint(images[chosen].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
  size = (data.image_size, data.image_size)
  resized = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in pixels]
  return ArraySource(np.stack(resized)[..., None], labels[chosen].astype(np.int32), num_classes=10)


SOURCES = {'digits': digits}


def open_source(data, split):
  """The source that data.name names. ValueError for a name that is not in SOURCES or a wrong split."""
  if data.name not in SOURCES:
    raise ValueError(f'unknown data.name {data.name!r}; known: {", ".join(sorted(SOURCES))}')
  if split not in SPLITS:
    raise ValueError(f'split must be one of {SPLITS}, but is {split!r}')
  if data.image_size < 1:
    raise ValueError(f'data.image_size must be 1 or more, but is {data.image_size}')
  return SOURCES[data.name](data, split)
