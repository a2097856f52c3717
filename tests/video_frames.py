"""Videos for tests, as folders of numbered frames, and a config of clips of them."""

import dataclasses
import pathlib

import numpy as np
from image_batches import unreadable
from PIL import Image

from ctx_flax.configs import default

CLIPS = {'short_side': 0, 'crop_scales': (), 'sampling': 'uniform'}


def clip_config(segments=4):
  """Pixels keep their values, 0 to 255; no thread but the main one, so that nothing is made ahead."""
  config = default.get_config(task='video').copy_and_resolve_references()
  config.train.batch_size = 6
  config.eval.update(batch_size=4, crop_ratio=1.0, views='center')
  config.data.update(image_size=8, mean=(0.0,), std=(1 / 255,), threads=0, **CLIPS)
  config.model.segments = segments
  return config


def augmented(config):
  """The whole augmentation of the ConvNeXt recipe and TSM's crops."""
  config.data.update(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), short_side=12)
  config.data.update(crop_scales=(1.0, 0.875, 0.75, 0.66), flip=0.5, rotate=10.0, shift=0.1, erasing=0.5)
  config.data.rand_augment.operations = 2
  return config


def write_frames(folder, frames, label=0):
  """An element of a source: frames uint8 (h, w, 3) as files that keep their values."""
  folder.mkdir(parents=True, exist_ok=True)
  names = tuple(f'img_{i + 1:05d}.png' for i in range(len(frames)))
  for name, frame in zip(names, frames, strict=True):
    Image.fromarray(frame).save(folder / name)
  return {'frames': (str(folder), names), 'label': label}


def numbered_frames(n, h=8, w=8):
  """Every pixel is the number of its frame."""
  return np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, h, w, 3))


@dataclasses.dataclass(frozen=True)
class Videos:
  """Videos below a folder, whose label is their index; `bad` ones cannot be read, for two reasons."""

  root: pathlib.Path
  length: int = 10
  frames: int = 9
  bad: tuple[int, ...] = ()

  def __len__(self):
    return self.length

  def __getitem__(self, index):
    if index in self.bad:
      raise unreadable(index)
    names = tuple(f'img_{i + 1:05d}.png' for i in range(self.frames))
    return {'frames': (str(self.root / str(index)), names), 'label': index}

  def name(self, index):
    return f'{index}.mp4'


def write_videos(root, length=10, frames=9, h=12, w=16):
  """The files of Videos(root, length, frames), of smooth random frames, each unlike any other."""
  rng = np.random.default_rng(0)
  for index in range(length):
    coarse = rng.integers(0, 256, (frames, 3, 4, 3), np.uint8)
    images = [Image.fromarray(frame).resize((w, h), Image.Resampling.BILINEAR) for frame in coarse]
    write_frames(root / str(index), [np.asarray(image) for image in images], index)
  return root
