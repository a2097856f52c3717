"""scikit-learn's 1,797 handwritten digits."""

import dataclasses
from typing import Any

import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True)
class ArraySource:
  """Images that fit in memory: images uint8 (n, h, w, c), labels int (n,)."""

  images: np.ndarray
  labels: np.ndarray
  class_names: tuple[str, ...]
  split: str = ''

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  def __len__(self) -> int:
    return len(self.images)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {'image': self.images[index], 'label': int(self.labels[index])}

  def name(self, index: int) -> str:
    return f'{self.split}[{index}]'


def digits(data: Any, split: str) -> ArraySource:
  """The digits, 8x8, enlarged (Pillow, bicubic) to data.image_size.

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
  names = tuple(str(digit) for digit in range(10))
  return ArraySource(np.stack(resized)[..., None], labels[chosen].astype(np.int32), names, split)
