"""Pooled stage-4 features of all images of a source, extracted once and kept on the disk."""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import tempfile
import types

import numpy as np

from ctx_flax import files
from ctx_flax.data import pipeline, transforms
from ctx_flax.models.inference import apply_in_turn
from ctx_flax.models.weight_files import flatten
from ctx_flax.training.feed import BadImages
from ctx_flax.training.halt import failed_report
from ctx_flax.training.over_images import rows_of

IRRELEVANT = {'parent', 'name', 'axis_name', 'remat', 'depthwise_path'}  # fields that change no feature
PART = 16  # batches in a file: what is lost when the extraction is killed


def extract(model, variables, source, config, cache, label):
  """The features of a source's images, from the cache where they are there.

  They are GAP(X_4), the mean over the pixels of the last stage (and over the frames of a clip), in inference
  mode, of the centre crop.

  Args:
    model: a network of ctx_flax.models.
    variables: its variables.
    source: of ctx_flax.data.sources.
    config: uses data, and eval.{batch_size, crop_ratio}.
    cache: the folder that holds a folder per key; parts that are complete are taken from there.
    label: what the progress display says is extracted.

  Returns:
    (features float32 (n, c), labels int32 (n,)) of the images that could be read.

  Raises:
    BadImage: one could not be read, where data.on_bad_image is 'error'.
    Halt: the cache could not be written (1).
  """
  cache = pathlib.Path(os.path.expanduser(cache))
  own = own_functions(model)
  if own:
    # Nothing tells tomorrow's function of the same name from today's.
    print(f'{label}: not kept for later, because the network has a function of its own: {", ".join(own)}')
    with failed_report(cache):
      cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
      return _extract_into(pathlib.Path(folder), model, variables, source, config, label)
  return _extract_into(cache / key(model, variables, source, config), model, variables, source, config, label)


def own_functions(model):
  """The names of a network's fields that hold another function than the family's default."""
  fields = [field for field in dataclasses.fields(model) if _is_function(field.default)]
  return [field.name for field in fields if getattr(model, field.name) is not field.default]


def _is_function(value):
  return isinstance(value, types.FunctionType)


def _extract_into(folder, model, variables, source, config, label):
  """What `extract` returns; parts that are complete in the folder are taken from there."""
  batches = -(-len(source) // config.eval.batch_size)
  parts = [folder / f'{i:05d}.npz' for i in range(-(-batches // PART))]
  done = next((i for i, path in enumerate(parts) if not path.exists()), len(parts))
  if done < len(parts):
    with failed_report(folder):
      folder.mkdir(parents=True, exist_ok=True)
      _extract_parts(model, variables, source, config, parts, done, batches, label)
  else:
    print(f'{label}: {len(source):,} images, from {files.printable(folder)}', flush=True)
  loaded = []
  for path in parts:
    with np.load(path) as arrays:
      loaded.append((arrays['features'], arrays['labels']))
  features, labels = (np.concatenate(arrays) for arrays in zip(*loaded, strict=True))
  return features, labels


def key(model, variables, source, config):
  """Hash of all that the features depend on: the network, its weights, the images' files, the transform."""
  digest = hashlib.sha256()
  fields = [field for field in dataclasses.fields(model) if not _is_function(field.default)]
  names = sorted({field.name for field in fields} - IRRELEVANT)
  values = [(name, getattr(model, name)) for name in names]
  digest.update(repr((type(model).__name__, values)).encode())
  for name, value in sorted(flatten(variables).items()):
    array = np.asarray(value)
    digest.update(f'{name} {array.dtype} {array.shape}'.encode())
    digest.update(array.tobytes())
  digest.update(repr((transforms.eval_transform(config), config.data.name, config.data.split_seed)).encode())
  digest.update(repr((config.eval.batch_size, PART, len(source))).encode())
  for i in range(len(source)):
    digest.update(source.name(i).encode('utf-8', 'surrogateescape'))
    if hasattr(source, 'root'):
      with contextlib.suppress(OSError):  # of a file that is gone; its name is enough
        status = os.stat(os.path.join(source.root, source.name(i)))
        digest.update(f'{status.st_size} {status.st_mtime_ns}'.encode())
  return digest.hexdigest()[:24]


def _extract_parts(model, variables, source, config, parts, done, batches, label):
  def features_of(variables, batch):
    _, out = apply_in_turn(model, variables, batch['image'])
    pooled = out['pre_logits']
    if pooled.ndim == 3:  # of the frames of clips
      pooled = pooled.mean(1)
    return {'features': pooled.astype(np.float32), 'labels': batch['label']}

  rows = rows_of(
    features_of,
    {**variables, **model.class_tables(variables)},
    pipeline.eval_batches(source, config, start=done * PART),
    lambda progress: BadImages(lambda index: pipeline.describe_bad(source, index, config), progress.warn),
    config,
    len(source),
    label,
    first=done * PART,
  )
  features, labels = [], []
  for number, batch in enumerate(rows, done * PART + 1):
    features.append(batch['features'])
    labels.append(batch['labels'])
    if number % PART == 0 or number == batches:
      path = parts[(number - 1) // PART]
      with files.replacing(path) as part, part.open('wb') as file:  # savez would append .npz to a name
        np.savez(file, features=np.concatenate(features), labels=np.concatenate(labels))
      features, labels = [], []
