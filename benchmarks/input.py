"""The input pipeline of ConvNeXt's recipe: JPEGs of 500 x 375 to mixed batches, in images/s of one core."""

import importlib.util
import io
import pathlib
import tempfile
import time

import numpy as np
from PIL import Image

from benchmarks.measure import median, ratio, take_turns
from configs import convnext_t
from ctx_flax.data import pipeline, sources, transforms

FILES = 64
SIZE = (375, 500)


def run(settings):
  """[row, ...]: single images through our transforms (and timm's), then whole batches of the pipeline."""
  with tempfile.TemporaryDirectory() as folder:
    write_images(pathlib.Path(folder))
    config = convnext_t.get_config('folder')
    config.data.update(path=folder, image_size=settings.image_size, threads=0, workers=0)
    config.train.batch_size = 32
    source = sources.open_source(config.data, 'train')
    return _transforms(config, source, settings) + [_pipeline(config, source, settings)]


def write_images(folder):
  """Photograph-like JPEGs: smooth structure of all sizes, and a little noise."""
  rng = np.random.default_rng(0)
  for i in range(FILES):
    pixels = np.zeros((*SIZE, 3), np.float32)
    for cells in (3, 8, 24, 80):
      coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
      pixels += np.asarray(coarse.resize(SIZE[::-1], Image.Resampling.BICUBIC), np.float32) / 4
    pixels += rng.normal(0, 6, pixels.shape)
    for split in ('train', 'validation'):
      path = folder / split / f'{i % 4}' / f'{i}.jpg'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=92)


def _transforms(config, source, settings):
  elements = [source[i] for i in range(len(source))]
  transform, rng = transforms.train_transform(config), np.random.default_rng(0)
  candidates = {'ours': lambda: [transform(element, rng) for element in elements]}
  theirs = timm_transform(settings.image_size)
  if theirs:
    candidates['timm'] = lambda: [
      theirs(Image.open(io.BytesIO(e['encoded'])).convert('RGB')) for e in elements
    ]
  seconds = take_turns(candidates, settings.rounds)
  rows = []
  for name, took in seconds.items():
    row = {'input': f'transforms, {name}', 'images/s per core': len(elements) / median(took)}
    rows.append(row | ({'of timm': ratio(seconds['timm'], took)} if theirs else {}))
  if not theirs:
    rows.append({'input': 'timm left out: timm and torchvision are not installed'})
  return rows


def _pipeline(config, source, settings):
  batches = pipeline.train_batches(source, config)
  try:
    next(batches)
    seconds = []
    for _ in range(settings.rounds):
      began = time.perf_counter()
      next(batches)
      seconds.append(time.perf_counter() - began)
  finally:
    batches.close()
  return {
    'input': 'pipeline, mixed batches of 32',
    'images/s per core': config.train.batch_size / median(seconds),
  }


def timm_transform(size):
  """The same policy in timm, or None where that is not installed."""
  if not all(importlib.util.find_spec(name) for name in ('timm', 'torchvision')):
    return None
  import torch
  from timm.data import create_transform

  torch.set_num_threads(1)
  return create_transform(
    size,
    is_training=True,
    auto_augment='rand-m9-mstd0.5-inc1',
    interpolation='bicubic',
    re_prob=0.25,
    re_mode='pixel',
    color_jitter=None,
  )
