"""Which images and annotations of a COCO file are used, and notes on all that are not.

The choice for training is that of MMDetection 2.11:
https://github.com/open-mmlab/mmdetection/blob/v2.11.0/mmdet/datasets/coco.py
"""

import collections
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from ctx_flax.data.coco_json import ANNOTATION, CODES, PROBLEMS, CocoFile
from ctx_flax.data.image_files import counted, few, folder_exists
from ctx_flax.files import printable

MIN_SIDE = 32  # pixels of the shorter side of an image to train on


class Notes:
  """What is left out or odd, by reason, with names."""

  def __init__(self) -> None:
    self._names: dict[tuple[str, str, str], list[str]] = collections.defaultdict(list)

  def add(self, noun: str, reason: str, names: Iterable[Any], done: str = 'left out ') -> None:
    """Notes what was done about the images or annotations (`noun`) of these names or ids."""
    shown = [*map(str, names)]
    if shown:
      self._names[done, noun, reason] += shown

  def lines(self) -> list[str]:
    """A line for each reason: how many, and the first few."""
    return [
      f'{done}{counted(len(names), noun)} {reason}: {few(names)}'
      for (done, noun, reason), names in self._names.items()
    ]


def listed_images(file: CocoFile, notes: Notes) -> np.ndarray:
  """Rows of the images of a file, without those that repeat another, in their order.

  Raises:
    ValueError: two images have one id, so that nobody knows whose its annotations are.
  """
  _, first, inverse = np.unique(file.image_ids, return_index=True, return_inverse=True)
  again = np.flatnonzero(first[inverse] != np.arange(len(inverse)))
  for row in again.tolist():
    other = int(first[inverse[row]])
    if file.image_names[row] != file.image_names[other] or any(file.image_hw[row] != file.image_hw[other]):
      raise ValueError(
        f'{printable(file.path)}: {printable(file.image_names[other])} and '
        f'{printable(file.image_names[row])} have the same image id {file.image_ids[row]}'
      )
  notes.add('image', 'listed once more', file.image_ids[again])
  return np.sort(first)


def sound_annotations(
  file: CocoFile, images: np.ndarray, split: str, notes: Notes
) -> tuple[np.ndarray, np.ndarray]:
  """The annotations that can be trained or tested on.

  Args:
    file: the annotation file.
    images: int (n,), rows of its images, each id once.
    split: 'train' leaves out crowds, which are background then, what is to be ignored, boxes outside the
      image or below one pixel, and what has no area. A test counts them as pycocotools does.
    notes: take what is left out, but for crowds.

  Returns:
    (annotations of dtype coco_json.ANNOTATION (m,), int (m,), the row in the file of each one's image).
  """
  annotations = file.annotations
  if annotations is None:
    return np.zeros(0, ANNOTATION), np.zeros(0, int)
  order = images[np.argsort(file.image_ids[images])]
  place = np.searchsorted(file.image_ids[order], annotations['image_id'])
  image = order[np.minimum(place, len(order) - 1)]
  hw = file.image_hw[image]
  training = np.full(len(annotations), split == 'train')
  reasons = [
    ('of images that it does not list', file.image_ids[image] != annotations['image_id']),
    ('of categories that it does not list', ~of_categories(file, annotations)),
    ('', training & annotations['crowd']),
    ('marked to be ignored', training & annotations['ignore']),
    *((words, annotations['problem'] == CODES[code]) for code, words in PROBLEMS.items()),
    ('with a box outside the image or below one pixel', training & ~_visible(annotations['box'], hw)),
    ('without area', training & (annotations['area'] <= 0)),
    ('with a mask of another size than the image', _other_size(annotations['rle_hw'], hw)),
  ]
  kept = np.ones(len(annotations), bool)
  for reason, wrong in reasons:  # each counts for the first that it has
    if reason:
      notes.add('annotation', reason, annotations['id'][kept & wrong])
    kept &= ~wrong
  ids, counts = np.unique(annotations['id'][kept], return_counts=True)
  notes.add('annotation id', 'of several annotations, all of which count', ids[counts > 1], done='')
  return annotations[kept], image[kept]


def of_categories(file: CocoFile, annotations: np.ndarray) -> np.ndarray:
  """Which annotations are of the categories of the file, bool."""
  return np.isin(annotations['category_id'], [category for category, _ in file.categories])


def trained_images(file: CocoFile, images: np.ndarray, notes: Notes) -> np.ndarray:
  """Rows of the images to train on: not small, and with an annotation, if only of a crowd."""
  assert file.annotations is not None
  known = file.annotations['image_id'][of_categories(file, file.annotations)]
  annotated = np.isin(file.image_ids[images], known)
  large = file.image_hw[images].min(axis=-1) >= MIN_SIDE
  notes.add('image', 'without annotations', [file.image_names[image] for image in images[~annotated]])
  small = images[annotated & ~large]
  notes.add('image', f'below {MIN_SIDE} pixels', [file.image_names[image] for image in small])
  return images[annotated & large]


def present_images(file: CocoFile, images: np.ndarray, folder: pathlib.Path, notes: Notes) -> np.ndarray:
  """Rows of the images that lie in the folder.

  Raises:
    OSError: a folder cannot be read; names it.
  """
  names = [file.image_names[image] for image in images]
  # Folders are listed: to ask the file system for each of 118,000 files takes minutes on a network drive.
  listed: set[str] = set()
  for inner in sorted({os.path.dirname(name) for name in names}):
    if folder_exists(folder / inner):
      listed.update(os.path.join(inner, name) for name in os.listdir(folder / inner))
  present = np.array([os.path.join(*os.path.split(name)) in listed for name in names], bool)
  missing = [name for name, there in zip(names, present, strict=True) if not there]
  notes.add('image', f'that {printable(folder)} does not hold', missing)
  return images[present]


def _visible(box: np.ndarray, hw: np.ndarray) -> np.ndarray:
  """Which boxes (x, y, w, h) have a pixel each way and a part in the image of (h, w)."""
  x, y, w, h = box.T
  image_h, image_w = hw.T
  inside = (np.minimum(x + w, image_w) > np.maximum(x, 0)) & (np.minimum(y + h, image_h) > np.maximum(y, 0))
  return inside & (w >= 1) & (h >= 1)


def _other_size(rle_hw: np.ndarray, hw: np.ndarray) -> np.ndarray:
  return rle_hw.any(axis=-1) & (rle_hw != hw).any(axis=-1)
