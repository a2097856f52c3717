"""Sources of images, settings for them, and the batches that the pipeline makes of them."""

import contextlib
import dataclasses
import errno
import os

import numpy as np
from PIL import Image

from ctx_flax.configs import default
from ctx_flax.data import pipeline, sources
from ctx_flax.data.decode import BadImage

IMAGES = 50  # in the folder of JPEGs; grain takes milliseconds to shuffle much fewer


def unreadable(index):
  """The error of an element that cannot be read: of its content, or of the file system."""
  return BadImage('cut short') if index % 2 else OSError(errno.EIO, os.strerror(errno.EIO))


@dataclasses.dataclass(frozen=True)
class Numbered:
  """Images that show their index, which is their label too; `bad` ones cannot be read, for two reasons."""

  length: int = 10
  bad: tuple[int, ...] = ()

  def __len__(self):
    return self.length

  def __getitem__(self, index):
    if index in self.bad:
      raise unreadable(index)
    return {'image': np.full((4, 4, 1), index, np.uint8), 'label': index}

  def name(self, index):
    return f'{index}.png'


def plain_config():
  """Pixels keep their values, 0 to 255; no thread but the main one, so that nothing is made ahead."""
  config = default.get_config()
  config.train.batch_size = 6
  config.eval.update(batch_size=4, crop_ratio=1.0)
  config.data.update(image_size=4, mean=(0.0,), std=(1 / 255,), threads=0)
  return config


def write_jpegs(root):
  """A folder as ImageNet's: two classes of JPEGs of different sizes, gray ones among them."""
  rng = np.random.default_rng(0)
  for i in range(IMAGES):
    folder = root / 'train' / f'n{i % 2}'
    folder.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (5 + i % 3, 6, 3), np.uint8)
    image = Image.fromarray(pixels).resize((40 + i % 14, 30 + 2 * (i % 14)), Image.Resampling.BICUBIC)
    (image.convert('L') if i % 5 == 4 else image).save(folder / f'{i}.jpg')
  (root / 'val').symlink_to('train')
  return root


def full_config(jpegs):
  """The whole augmentation of the ConvNeXt recipe, in batches of 12 of the 50 JPEGs."""
  config = plain_config()
  config.train.batch_size = 12
  config.data.update(name='image_folder', path=str(jpegs), image_size=24)
  config.data.update(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
  config.data.update(crop_scale=(0.08, 1.0), flip=0.5, erasing=0.25, mixup=0.8, cutmix=1.0)
  config.data.rand_augment.operations = 2
  return config


def train(source, config, n, *place):
  with contextlib.closing(pipeline.train_batches(source, config, *place)) as batches:
    return [next(batches) for _ in range(n)]


def evaluate(source, config, *place):
  with contextlib.closing(pipeline.eval_batches(source, config, *place)) as batches:
    return list(batches)


def opened(config, split='train'):
  return sources.open_source(config.data, split)


def assert_same(found, expected):
  assert len(found) == len(expected)
  for a, b in zip(found, expected, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name], strict=True, err_msg=name)


def column(batches, name):
  return np.concatenate([batch[name] for batch in batches])
