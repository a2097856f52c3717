"""The input pipeline of ConvNeXt's recipe: JPEGs of 500 x 375 to mixed batches, in images/s of one core."""

import contextlib
import importlib.util
import io
import pathlib
import tempfile

import numpy as np
from PIL import Image

from benchmarks import clips
from benchmarks.measure import median, ratio, take_turns
from configs import convnext_t
from ctx_flax.data import pipeline, sources, transforms

FILES, NAMES = 64, 4096  # different ones, and names: a set as small as 64 would be shuffled slowly
SIZE = (375, 500)


def run(settings):
  """[row, ...]: single images through the transforms, then whole batches from files; timm's beside ours."""
  with tempfile.TemporaryDirectory() as folder:
    write_images(pathlib.Path(folder))
    config = convnext_t.get_config('folder')
    config.data.update(path=folder, image_size=settings.image_size, threads=0, workers=0)
    config.train.batch_size = 32
    source = sources.open_source(config.data, 'train')
    rows = _transforms(config, source, settings) + _batches(config, source, folder, settings)
  if not has_timm():
    rows.append({'input': 'timm left out: timm and torchvision are not installed'})
  return rows + clips.reading(settings)


def write_images(folder):
  """Photograph-like JPEGs: smooth structure of all sizes, and a little noise. Many names for each."""
  rng = np.random.default_rng(0)
  for split in ('train', 'validation'):
    for label in range(4):
      (folder / split / str(label)).mkdir(parents=True)
  for i in range(FILES):
    pixels = np.zeros((*SIZE, 3), np.float32)
    for cells in (3, 8, 24, 80):
      coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
      pixels += np.asarray(coarse.resize(SIZE[::-1], Image.Resampling.BICUBIC), np.float32) / 4
    pixels += rng.normal(0, 6, pixels.shape)
    first = folder / 'validation' / str(i % 4) / f'{i}.jpg'
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(first, quality=92)
    for name in range(i, NAMES, FILES):
      (folder / 'train' / str(i % 4) / f'{name}.jpg').hardlink_to(first)


def _transforms(config, source, settings):
  elements = [source[i] for i in range(0, len(source), len(source) // FILES)]
  transform, rng = transforms.train_transform(config), np.random.default_rng(0)
  candidates = {'ours': lambda: [transform(element, rng) for element in elements]}
  if has_timm():
    theirs = timm_transform(settings.image_size)
    candidates['timm'] = lambda: [
      theirs(Image.open(io.BytesIO(e['encoded'])).convert('RGB')) for e in elements
    ]
  return _rows('transforms', candidates, len(elements), settings)


def _batches(config, source, folder, settings):
  """The whole way from files to mixed batches."""
  size = config.train.batch_size
  batches = pipeline.train_batches(source, config)
  candidates = {'ours': lambda: next(batches)}
  if has_timm():
    theirs = timm_batches(pathlib.Path(folder) / 'train', settings.image_size, size)
    candidates['timm'] = lambda: next(theirs)
  try:
    return _rows(f'mixed batches of {size}', candidates, size, settings)
  finally:
    batches.close()


def _rows(what, candidates, images, settings):
  seconds = take_turns(candidates, settings.rounds)
  return [
    {'input': f'{what}, {name}', 'images/s per core': images / median(took)}
    | ({'of timm': ratio(seconds['timm'], took)} if 'timm' in seconds else {})
    for name, took in seconds.items()
  ]


def has_timm():
  return all(importlib.util.find_spec(name) for name in ('timm', 'torchvision'))


def timm_transform(size):
  """The same policy in timm."""
  import torch
  from timm.data import create_transform

  torch.set_num_threads(1)
  transform = create_transform(
    size,
    is_training=True,
    auto_augment='rand-m9-mstd0.5-inc1',
    interpolation='bicubic',
    re_prob=0.25,
    re_mode='pixel',
    color_jitter=None,
  )

  def transformed(image):
    while True:
      # At the highest magnitude its posterize keeps no bit, which recent versions of Pillow refuse.
      with contextlib.suppress(ValueError):
        return transform(image)

  return transformed


def timm_batches(folder, size, batch_size):
  """Endless mixed batches of an image folder as timm makes them, in this process."""
  import torch
  from timm.data import ImageDataset, Mixup

  mix = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, switch_prob=0.5, label_smoothing=0.1, num_classes=1000)
  loader = torch.utils.data.DataLoader(
    ImageDataset(str(folder), transform=timm_transform(size)), batch_size, shuffle=True, drop_last=True
  )
  while True:
    for images, labels in loader:
      yield mix(images, labels)
