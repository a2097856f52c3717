"""Pooled stage-4 features of all images of a source, extracted once and kept on the disk."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import time

import numpy as np

from ctx_flax.data import pipeline, transforms
from ctx_flax.models.inference import apply_in_turn
from ctx_flax.models.weights import flatten
from ctx_flax.training import parallel
from ctx_flax.training.feed import Feed
from ctx_flax.training.logging import Progress

PART = 16  # batches in a file: what is lost when the extraction is killed


def extract(model, variables, source, config, cache, label):
  """The features of a source's images, from the cache where they are there.

  They are GAP(X_4), the mean over the pixels of the last stage, in inference mode, of the centre crop.

  Args:
    model: a network of ctx_flax.models.
    variables: its variables.
    source: of ctx_flax.data.sources.
    config: uses data, and eval.{batch_size, crop_ratio}.
    cache: the folder that holds a folder per key; parts that are complete are taken from there.
    label: what the progress display says is extracted.

  Returns:
    (features float32 (n, c), labels int32 (n,)) of the images that could be read.
  """
  folder = pathlib.Path(os.path.expanduser(cache)) / key(model, variables, source, config)
  folder.mkdir(parents=True, exist_ok=True)
  batches = -(-len(source) // config.eval.batch_size)
  parts = [folder / f'{i:05d}.npz' for i in range(-(-batches // PART))]
  done = next((i for i, path in enumerate(parts) if not path.exists()), len(parts))
  if done < len(parts):
    with Progress(batches, done * PART) as progress:
      _extract_parts(model, variables, source, config, parts, done, batches, progress, label)
  else:
    print(f'{label}: {len(source):,} images, from {folder}', flush=True)
  loaded = []
  for path in parts:
    with np.load(path) as arrays:
      loaded.append((arrays['features'], arrays['labels']))
  features, labels = (np.concatenate(arrays) for arrays in zip(*loaded, strict=True))
  return features, labels


def key(model, variables, source, config):
  """Hash of all that the features depend on: the network, its weights, the images' files, the transform."""
  digest = hashlib.sha256()
  fields = {
    field.name: getattr(model, field.name) for field in dataclasses.fields(model) if field.name != 'shift'
  }
  fields = {
    name: value for name, value in fields.items() if name not in ('parent', 'name', 'axis_name', 'remat')
  }
  digest.update(repr((type(model).__name__, sorted(fields.items(), key=str))).encode())
  for name, value in sorted(flatten(variables).items()):
    array = np.asarray(value)
    digest.update(f'{name} {array.dtype} {array.shape}'.encode())
    digest.update(array.tobytes())
  digest.update(repr((transforms.eval_transform(config), config.data.name, config.data.split_seed)).encode())
  digest.update(repr((config.eval.batch_size, PART, len(source))).encode())
  for i in range(len(source)):
    digest.update(source.name(i).encode('utf-8', 'surrogateescape'))
    if hasattr(source, 'root'):
      status = os.stat(os.path.join(source.root, source.name(i)))
      digest.update(f'{status.st_size} {status.st_mtime_ns}'.encode())
  return digest.hexdigest()[:24]


def _extract_parts(model, variables, source, config, parts, done, batches, progress, label):
  def features_of(variables, images):
    _, out = apply_in_turn(model, variables, images)
    return out['pre_logits'].astype(np.float32)

  run = parallel.pmap_rows(features_of)
  variables = parallel.replicate({**variables, **model.class_tables(variables)})

  def place(batch):
    bad = batch['bad'][batch['bad'] >= 0]
    for index in bad.tolist():
      progress.warn(f'unreadable image left out: {pipeline.describe_bad(source, index, config)}')
    images = parallel.place_batch({'image': batch['image']})['image']
    return images, batch['label'], batch['weight'] > 0

  made = pipeline.eval_batches(source, config, start=done * PART)
  began, first = time.monotonic(), done * PART
  features, labels = [], []
  with contextlib.closing(Feed(made, place, config.data.prefetch)) as feed:
    for number, (images, label_of, kept) in enumerate(feed, first + 1):
      features.append(run(variables, images)[kept])
      labels.append(label_of[kept])
      if number % PART == 0 or number == batches:
        path = parts[(number - 1) // PART]
        part = path.with_suffix('.part.npz')
        np.savez(part, features=np.concatenate(features), labels=np.concatenate(labels))
        os.replace(part, path)
        features, labels = [], []
      rate = (time.monotonic() - began) / (number - first)
      images_done = min(number * config.eval.batch_size, len(source))
      progress.update(number, f'{label}: {images_done:,} images', rate * (batches - number))
