"""A small set for instance segmentation in COCO's layout, made here: cut-outs of photographs on photographs.

Eight classes, images of 112 to 160 pixels. See ctx_flax.data.coco_tiny_render for what they show.
"""

import argparse
import concurrent.futures
import hashlib
import io
import json
import os
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

import rich.progress
from PIL import Image

from ctx_flax import files, terminal
from ctx_flax.data import coco_tiny_render
from ctx_flax.data.claims import claim, is_claimed
from ctx_flax.data.coco import CocoSource, coco
from ctx_flax.data.coco_tiny_outlines import CLASSES

CACHE = '~/.cache/ctx_flax'
FOLDERS = {'train': 'train2017', 'test': 'val2017'}  # split -> what COCO calls it
IMAGES = {'train': 500, 'test': 100}  # by default


def coco_tiny(data: Any, split: str) -> CocoSource:
  """The set as ctx_flax.data.coco reads it.

  Args:
    data: config.data. train_images and test_images say how many images there are, split_seed draws them. path
      is a new or an empty folder or one from the same settings; '' = ~/.cache/ctx_flax/coco_tiny-HASH.
    split: 'train' or 'test'.

  Images that are not there yet are made, of both splits, as `write` does.

  Raises:
    ValueError: a number of images is wrong, or the folder holds something else.
    OSError: the folder cannot be written; names it.
    ImportError: pycocotools is not installed.
  """
  images = {'train': data.train_images, 'test': data.test_images}
  for name, number in images.items():
    if number < 1:
      raise ValueError(f'data.{name}_images must be 1 or more, but is {number}')
  root = pathlib.Path(os.path.expanduser(data.path)) if data.path else _cache(images, data.split_seed)
  try:
    write(root, images, data.split_seed)
  except ValueError as error:
    raise ValueError(f'data.path: {error}') from None
  layout = {f'{part}_split': folder for part, folder in FOLDERS.items()}
  layout |= {'path': str(root), 'train_annotations': '', 'test_annotations': ''}
  return coco(types.SimpleNamespace(**layout, name=data.name, max_objects=data.max_objects), split)


def write(root: pathlib.Path, images: dict[str, int], seed: int) -> None:
  """Makes the images that are not there yet, and the annotation files when all of a split are.

  Several processes may do so at once, and one that was ended is gone on with.

  Args:
    root: the folder.
    images: {split: how many}.
    seed: that draws them.

  Raises:
    ValueError: the folder holds something else.
    OSError: it cannot be written; names it.
  """
  settings = _settings(images, seed)
  missing = [split for split in images if not _annotation_file(root, split).exists()]
  if not missing and is_claimed(root, settings):
    return
  claim(root, settings)
  total = sum(images[split] for split in missing)
  console = terminal.console(sys.stderr)
  console.print(
    f'coco_tiny: making {total:,} images in {files.printable(root)}', markup=False, highlight=False
  )
  with rich.progress.Progress(console=console) as progress:
    task = progress.add_task('coco_tiny', total=total)
    for split in missing:
      entries = _make(root, split, images[split], seed, lambda: progress.advance(task))
      files.write_text(_annotation_file(root, split), json.dumps(entries) + '\n', shared=True)


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
  """Adds the options of `prepare coco_tiny`."""
  for option, default in (
    *((f'{split}_images', number) for split, number in IMAGES.items()),
    ('split_seed', 0),
  ):
    parser.add_argument(f'--{option}', type=int, default=default, help=f'by default {default}')


def write_folder(name: str, root: pathlib.Path, options: argparse.Namespace) -> str:
  """`write` with what add_options parses, and its errors; returns what to type to train on the set."""
  images = {'train': options.train_images, 'test': options.test_images}
  for split, number in images.items():
    if number < 1:
      raise ValueError(f'--{split}_images must be 1 or more, but is {number}')
  if not 0 <= options.split_seed < 2**32:
    raise ValueError(f'--split_seed must be between 0 and 2**32 - 1, but is {options.split_seed}')
  write(root, images, options.split_seed)
  return f'--config.data.name=coco {files.shell_word(f"--config.data.path={root}")}'


def _cache(images: dict[str, int], seed: int) -> pathlib.Path:
  digest = hashlib.sha256(json.dumps(_settings(images, seed), sort_keys=True).encode()).hexdigest()
  return pathlib.Path(os.path.expanduser(CACHE)) / f'coco_tiny-{digest[:12]}'


def _settings(images: dict[str, int], seed: int) -> dict[str, Any]:
  return {'name': 'coco_tiny', 'images': images, 'seed': seed, **coco_tiny_render.settings()}


def _annotation_file(root: pathlib.Path, split: str) -> pathlib.Path:
  return root / 'annotations' / f'instances_{FOLDERS[split]}.json'


def _make(
  root: pathlib.Path, split: str, count: int, seed: int, advance: Callable[[], None]
) -> dict[str, Any]:
  """Makes the images of a split that are not there; returns the content of its annotation file."""
  categories = [{'id': number, 'name': name} for number, name in enumerate(CLASSES, 1)]
  images: list[dict[str, Any]] = []
  annotations: list[dict[str, Any]] = []
  # Threads, as OpenCV works without Python's lock, and processes would start the program anew.
  with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
    made = [pool.submit(_make_image, root / FOLDERS[split], split, index, seed) for index in range(count)]
    try:
      for future in made:
        image, entries = future.result()
        images.append(image)
        annotations += [{'id': len(annotations) + i, **entry} for i, entry in enumerate(entries, 1)]
        advance()
    except BaseException:
      pool.shutdown(cancel_futures=True)
      raise
  info = {'description': 'cut-outs of photographs on photographs: ctx_flax.data.coco_tiny'}
  return {'info': info, 'images': images, 'annotations': annotations, 'categories': categories}


def _make_image(
  folder: pathlib.Path, split: str, index: int, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Writes an image, unless it is there: its entry, and those of its annotations without their ids."""
  pixels, instances = coco_tiny_render.render(seed, split, index)
  path = folder / f'{index + 1:06d}.png'
  if not path.exists():
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, 'PNG')
    files.write_bytes(path, content.getvalue(), shared=True)
  h, w = pixels.shape[:2]
  annotations = [
    {
      'image_id': index + 1,
      'category_id': instance.label + 1,
      'bbox': instance.box(),
      'area': int(instance.mask.sum()),
      'iscrowd': 0,
      'segmentation': instance.segmentation(),
    }
    for instance in instances
  ]
  return {'id': index + 1, 'file_name': path.name, 'height': h, 'width': w}, annotations
