"""Small data sets in COCO's layout, settings for them, and the batches that are made of them."""

import contextlib
import json

import numpy as np
from PIL import Image

from ctx_flax.configs import default
from ctx_flax.data import detection_pipeline, detection_sources

CATEGORIES = ((90, 'bird'), (1, 'cat'), (3, 'dog'))  # in no order, with gaps


def detection_config():
  """Images keep their sizes or get a third smaller; no thread but the main one."""
  config = default.get_config(task='detection')
  config.train.batch_size, config.eval.batch_size, config.eval.short_side = 4, 4, 48
  config.data.update(threads=0, scales=(32, 48), long_side=96, canvases=((64, 64), (64, 96)), max_objects=5)
  config.data.update(crop_scales=(40, 56), crop_sides=(24, 40))
  return config


def square(number, image, box, category=1, **changes):
  """An annotation of a box (x, y, w, h) whose mask fills it."""
  x, y, w, h = box
  corners = [x, y, x + w, y, x + w, y + h, x, y + h]
  entry = {'id': number, 'image_id': image, 'category_id': category, 'bbox': [*box], 'area': w * h}
  return entry | {'iscrowd': 0, 'segmentation': [corners]} | changes


# Images and annotations in which nothing is wrong.
SOUND_SIZES = [(40, 50), (50, 40), (60, 60)]
SOUND = [
  square(1, 1, (5, 6, 20, 10), category=90),
  square(2, 3, (0, 0, 60, 60), category=1),
  square(3, 1, (10, 10, 30, 20), category=3),
  square(4, 2, (1.5, 2.5, 10, 10.25), category=1),
]


def settings_at(root):
  """The part of the config that says where a set is, for one in a folder."""
  config = detection_config()
  config.data.path = str(root)
  return config.data


def open_source(data, split='train'):
  """The source of COCO files that config.data names."""
  return detection_sources.open_detection_source(data, split)


def picture(number, h, w):
  """Pixels that tell the image and the place."""
  y, x = np.mgrid[:h, :w]
  return np.stack([np.full((h, w), 10 * number % 256), 3 * y % 256, 2 * x % 256], axis=-1).astype(np.uint8)


def write_coco(root, sizes, annotations, split='train2017', missing=(), **changes):
  """Writes images 1, 2, ... of sizes (h, w) and their annotation file; returns the content of the latter.

  `missing` are numbers of images that are listed and not written, `changes` replace lists of the file.
  """
  content = {
    'info': {'description': 'ö', 'nested': [1, {'a': 2}]},
    'images': [
      {'id': number, 'file_name': f'{number:03d}.png', 'height': h, 'width': w}
      for number, (h, w) in enumerate(sizes, 1)
    ],
    'annotations': annotations,
    'categories': [{'id': number, 'name': name} for number, name in CATEGORIES],
  }
  content |= changes
  (root / split).mkdir(parents=True, exist_ok=True)
  for number, (h, w) in enumerate(sizes, 1):
    if number not in missing:
      Image.fromarray(picture(number, h, w)).save(root / split / f'{number:03d}.png')
  path = root / 'annotations' / f'instances_{split}.json'
  path.parent.mkdir(exist_ok=True)
  path.write_text(json.dumps(content), encoding='utf-8')
  return content


SIZES = [(48, 64), (64, 48), (48, 48), (40, 64), (64, 40), (48, 64), (64, 64), (48, 60), (36, 48), (48, 36)]


def write_many(root):
  """Ten images of many sizes with one to three objects each, to train and to test on."""
  annotations = [
    square(10 * image + k, image, (2 + 5 * k, 3 + 4 * k, 12 + image, 10 + k), category=(1, 3, 90)[k])
    for image in range(1, len(SIZES) + 1)
    for k in range(1 + image % 3)
  ]
  for split in ('train2017', 'val2017'):
    write_coco(root, SIZES, annotations, split)
  return root


def opened(config, split='train'):
  return open_source(config.data, split)


def train(source, config, n, *place):
  with contextlib.closing(detection_pipeline.train_batches(source, config, *place)) as batches:
    return [next(batches) for _ in range(n)]


def evaluate(source, config, *place):
  with contextlib.closing(detection_pipeline.eval_batches(source, config, *place)) as batches:
    return list(batches)
