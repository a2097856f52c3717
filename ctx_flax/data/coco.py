"""Images with objects as COCO lays them out: for each split a JSON file of annotations and a folder."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctx_flax.data import coco_json, coco_masks, coco_selection
from ctx_flax.data.coco_json import CocoFile
from ctx_flax.data.coco_selection import Notes
from ctx_flax.data.decode import BadImage
from ctx_flax.data.file_source import FileSource, data_folder
from ctx_flax.data.image_files import folder_exists
from ctx_flax.files import printable
from ctx_flax.nearest import nearest

NEEDED = 'a folder with annotations/instances_train2017.json, train2017/*.jpg and the same of val2017'
FILES = (
  'instances',
  'image_info',
)  # what annotation files begin with; those of the test images have no objects
PARTS = '-dev', '-challenge'  # of COCO's test images: lists of some of them, which lie in one folder


@dataclasses.dataclass(frozen=True)
class Objects:
  """The objects of an image, in the order of the file.

  Attributes:
    boxes: float32 (n, 4), (x1, y1, x2, y2) in pixels, as they stand there: one may reach out of the image.
    labels: int32 (n,).
    hw: of the image and the masks.
    file: (path, size) of the annotation file.
    places: int64 (n, 2), start and length of each one's annotation there.
  """

  boxes: np.ndarray
  labels: np.ndarray
  hw: tuple[int, int]
  file: tuple[str, int]
  places: np.ndarray

  def masks(self, rows: np.ndarray) -> np.ndarray:
    """The masks of some objects, uint8 (rows, h, w), 0 or 1.

    Raises:
      BadImage: the annotation file was changed.
      OSError: it is not there, or cannot be read.
    """
    masks = np.zeros((len(rows), *self.hw), np.uint8)
    for mask, (start, length) in zip(masks, self.places[rows].tolist(), strict=True):
      try:
        entry = coco_json.annotation(*self.file, start, length)
        mask[...] = coco_masks.decode(entry['segmentation'], self.hw)
      except ValueError as error:
        raise BadImage(str(error)) from error
    return masks


class CocoSource(FileSource):
  """Images of a folder and the objects in them.

  Args:
    root: the folder of the images.
    file: the annotation file.
    images: int (n,), rows of its images.
    annotations: of dtype coco_json.ANNOTATION (m,).
    rows: int (m,), which of the n images each of them is of.
    remarks: see FileSource.

  Attributes:
    image_ids: int64 (n,), of the annotation file.
    hw: int32 (n, 2), sizes of the images as the annotation file has them.
    object_counts: int (n,), the number of objects of each image.
    category_ids: of the classes, in the order of the labels.
    annotation_file: its path.
  """

  def __init__(
    self,
    root: pathlib.Path,
    file: CocoFile,
    images: np.ndarray,
    annotations: np.ndarray,
    rows: np.ndarray,
    remarks: Sequence[str],
  ) -> None:
    names = [file.image_names[image] for image in images]
    super().__init__(root, names, np.zeros(len(names)), [name for _, name in file.categories], remarks)
    self.category_ids = tuple(category for category, _ in file.categories)
    self.annotation_file = file.path
    self.image_ids, self.hw = file.image_ids[images], file.image_hw[images]
    self.object_counts = np.bincount(rows, minlength=len(names))
    order = np.argsort(rows, kind='stable')
    annotations = annotations[order]
    self._object_ends = np.cumsum(self.object_counts)
    x, y, w, h = annotations['box'].T
    self._boxes = np.stack([x, y, x + w, y + h], axis=-1).astype(np.float32)
    self._object_labels = np.searchsorted(self.category_ids, annotations['category_id']).astype(np.int32)
    self._places = np.stack([annotations['start'], annotations['length']], axis=-1)
    self._file = file.path, file.size

  def __getitem__(self, index: int) -> dict[str, Any]:
    """{'encoded': bytes of the image file, 'objects': Objects}. OSError if it cannot be read."""
    with open(os.path.join(self.root, self.name(index)), 'rb') as file:
      return {'encoded': file.read(), 'objects': self.objects(index)}

  def objects(self, index: int) -> Objects:
    """The objects of an image."""
    h, w = self.hw[index].tolist()
    end = int(self._object_ends[index])
    part = slice(end - int(self.object_counts[index]), end)
    return Objects(self._boxes[part], self._object_labels[part], (h, w), self._file, self._places[part])

  def ground_truth(self) -> dict[str, Any]:
    """The annotation file with the images and annotations of this source alone, for pycocotools.

    Annotation ids count from 1: pycocotools takes an object of id 0 for none, and of two of one id it
    forgets one.

    Raises:
      ValueError, OSError: the annotation file was changed or cannot be read.
    """
    images = [
      {'id': image_id, 'file_name': self.name(index), 'height': h, 'width': w}
      for index, (image_id, (h, w)) in enumerate(zip(self.image_ids.tolist(), self.hw.tolist(), strict=True))
    ]
    annotations = []
    for number, place in enumerate(self._places.tolist(), 1):
      entry = coco_json.annotation(*self._file, *place)
      segmentation = entry['segmentation']
      if isinstance(segmentation, list):
        segmentation = coco_masks.polygons(segmentation)
      sound = {'id': number, 'area': coco_json.area(entry), 'segmentation': segmentation}
      annotations.append({'iscrowd': 0} | entry | sound)
    categories = zip(self.category_ids, self.class_names, strict=True)
    return {
      'images': images,
      'annotations': annotations,
      'categories': [{'id': category, 'name': name} for category, name in categories],
    }


def coco(data: Any, split: str) -> CocoSource:
  """The images of data.path that an annotation file lists, and their objects.

  data.path holds, with SPLIT for data.train_split or data.test_split:
    annotations/instances_SPLIT.json, or image_info_SPLIT.json of images without objects to test on; another
      file if data.train_annotations or data.test_annotations names it.
    SPLIT/, the images; the folder test2017 if SPLIT is test-dev2017.

  A label is the rank of the category id. Which images and annotations count is said in
  ctx_flax.data.coco_selection; what is missing or damaged is left out, and the source's remarks name it.

  Raises:
    FileNotFoundError: data.path is empty, or it, the annotation file or the folder of images does not exist.
    ValueError: the annotation file is damaged or has two images of one id, or there is nothing to train or
      to test on.
    OSError: a file or folder cannot be read; names it.
    ImportError: pycocotools is not installed.
  """
  coco_masks.require_pycocotools()
  root = data_folder(data, NEEDED)
  name = data.train_split if split == 'train' else data.test_split
  path = _annotation_file(root, data, split, name)
  folder = _image_folder(root, name, split)
  file = coco_json.read_coco_file(path)
  if split == 'train' and file.annotations is None:
    raise ValueError(f'{printable(path)} lists no annotations: there is nothing to train on')
  notes = Notes()
  images = coco_selection.listed_images(file, notes)
  annotations, image = coco_selection.sound_annotations(file, images, split, notes)
  if split == 'train':
    images = coco_selection.trained_images(file, images, notes)
  images = coco_selection.present_images(file, images, folder, notes)
  place = np.full(len(file.image_ids), -1)
  place[images] = np.arange(len(images))
  rows = place[image]
  annotations, rows = annotations[rows >= 0], rows[rows >= 0]
  for what, number in (('image', len(images)), ('object', len(rows) if split == 'train' else 1)):
    if not number:
      reasons = '; '.join(notes.lines())
      raise ValueError(f'{printable(path)} leaves no {what} to {split} on{": " if reasons else ""}{reasons}')
  if split == 'train':
    counts = np.bincount(rows, minlength=len(images))
    many = [f'{file.image_names[images[i]]} ({counts[i]})' for i in np.flatnonzero(counts > data.max_objects)]
    notes.add(
      'image', f'with more than data.max_objects={data.max_objects} objects, of which so many count', many, ''
    )
  remarks = [f'{printable(path)}: {line}' for line in notes.lines()]
  return CocoSource(folder, file, images, annotations, rows, remarks)


def _annotation_file(root: pathlib.Path, data: Any, split: str, name: str) -> pathlib.Path:
  named = data.train_annotations if split == 'train' else data.test_annotations
  if named:
    file = root / os.path.expanduser(named)
    if not file.is_file():
      raise FileNotFoundError(f'{printable(file)} is not a file; data.{split}_annotations names it')
    return file
  folder = root / 'annotations'
  for kind in FILES:
    if (folder / f'{kind}_{name}.json').is_file():
      return folder / f'{kind}_{name}.json'
  others = sorted(path.stem.partition('_')[2] for path in folder.glob('instances_*.json'))
  raise FileNotFoundError(
    f'{printable(folder / f"{FILES[0]}_{name}.json")} is not a file; data.{split}_split or '
    f'data.{split}_annotations names it{nearest(name, others)}'
  )


def _image_folder(root: pathlib.Path, name: str, split: str) -> pathlib.Path:
  folders = [name, *(name.replace(part, '') for part in PARTS if part in name)]
  for folder in folders:
    if folder_exists(root / folder):
      return root / folder
  raise FileNotFoundError(
    f'{printable(root / folders[-1])} is not a folder; data.{split}_split names that of the images'
  )
