"""The annotated objects that detections are compared with, as a COCO annotation file has them."""

import json
import os
import pathlib
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from ctx_flax.data import coco_masks
from ctx_flax.data.image_files import counted, few
from ctx_flax.files import printable


class GroundTruth:
  """The objects of some images of a data set.

  All objects of the images count, as for COCO's own evaluation: also those that are too small to be learned
  from, and crowds. Annotations of images and categories that the file does not list are left out as there,
  and so are those without a box or a mask, which `remarks` tells.

  Args:
    dataset: what a COCO annotation file holds: 'images' with id, height and width, 'annotations' with
      image_id, category_id, bbox (x y w h), segmentation (polygons or a run-length code), area and iscrowd,
      and 'categories' with id and name. It stays as it is. Without iscrowd, an object is no crowd; without
      area, it has that of its box.
    image_ids: the images that count; by default all.
    masks: whether objects have masks; False: their boxes alone are evaluated.

  Attributes:
    images: {id: record}, by rising id.
    category_ids: rising.
    class_names: of these categories.
    annotations: copies of the records, with ids from 1 on, masks as run-length codes of pycocotools.
    masks: as above.
    remarks: lines about what was left out.

  Raises:
    ValueError: a list is missing, a record of an image or a category lacks something or has the id of another
      one, an image that is to count is not listed, or no annotation has a mask.
    ImportError: masks need pycocotools, which is not installed.
  """

  def __init__(self, dataset: Mapping[str, Any], image_ids: Iterable[int] | None = None, masks: bool = True):
    if masks:
      coco_masks.require_pycocotools()
    for key in ('images', 'annotations', 'categories'):
      if not isinstance(dataset.get(key), list):
        raise ValueError(f'there is no list of {key!r}: these are no annotations in the format of COCO')
    images = _by_id(dataset, 'images', {'height': int, 'width': int})
    categories = {
      number: record['name'] for number, record in _by_id(dataset, 'categories', {'name': str}).items()
    }
    self.category_ids = tuple(sorted(categories))
    self.class_names = tuple(printable(categories[category]) for category in self.category_ids)
    chosen = set(images if image_ids is None else image_ids)
    unknown = sorted(chosen - set(images))
    if unknown:
      raise ValueError(f'image {unknown[0]} is not among the {len(images)} that are annotated')
    self.images = {image: images[image] for image in sorted(chosen)}
    self.masks = masks
    self.annotations: list[dict[str, Any]] = []
    left_out: dict[str, list[str]] = {'box': [], 'mask': []}
    for number, record in enumerate(dataset['annotations']):
      if not isinstance(record, dict):
        raise ValueError(f"record {number} (from 0) of 'annotations' is {record!r:.40}: expected an object")
      ids = record.get('image_id'), record.get('category_id')
      if (
        not all(isinstance(one, Hashable) for one in ids) or ids[0] not in chosen or ids[1] not in categories
      ):
        continue
      copy, lacking = self._checked(record)
      if lacking:
        left_out[lacking].append(str(record.get('id')))
      else:
        # Counted from 1: COCO's evaluation takes an object of the id 0 for one that was missed.
        self.annotations.append(copy | {'id': len(self.annotations) + 1})
    if left_out['mask'] and not self.annotations:
      raise ValueError('no annotation has a mask: the boxes alone can be evaluated')
    self.remarks = [
      f'{counted(len(ids), "annotation")} without a proper {what} {"does" if len(ids) == 1 else "do"} '
      f'not count: {few(ids)}'
      for what, ids in left_out.items()
      if ids
    ]

  def _checked(self, record: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """(A copy of the record, what it lacks: 'box', 'mask' or nothing, '')."""
    box, mask = record.get('bbox'), record.get('segmentation')
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box)):
      return {}, 'box'
    copy = {'area': box[2] * box[3], **record, 'iscrowd': int(bool(record.get('iscrowd')))}
    if self.masks:
      image = self.images[record['image_id']]
      h, w = image['height'], image['width']
      if coco_masks.problem(mask) or (isinstance(mask, dict) and mask['size'] != [h, w]):
        return {}, 'mask'
      copy['segmentation'] = _code(mask, h, w)
    return copy, ''

  def dataset(self) -> dict[str, Any]:
    """The same as the content of a file."""
    categories = zip(self.category_ids, self.class_names, strict=True)
    return {
      'images': list(self.images.values()),
      'annotations': self.annotations,
      'categories': [{'id': category, 'name': name} for category, name in categories],
    }


def read_ground_truth(
  path: str | os.PathLike[str], image_ids: Iterable[int] | None = None, masks: bool = True
) -> GroundTruth:
  """Reads the GroundTruth from a COCO annotation file.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is no such file; names it.
  """
  path = pathlib.Path(path)
  try:
    dataset = json.loads(path.read_bytes())
  except ValueError as error:  # no UTF-8, or no JSON
    raise ValueError(f'{printable(path)} is not a JSON file, or not all of one: {error}') from None
  if not isinstance(dataset, dict):
    raise ValueError(f'{printable(path)} holds no annotations in the format of COCO')
  try:
    return GroundTruth(dataset, image_ids, masks)
  except ValueError as error:
    raise ValueError(f'{printable(path)}: {error}') from None


def _by_id(dataset: Mapping[str, Any], name: str, kinds: Mapping[str, type]) -> dict[Any, dict[str, Any]]:
  """The records of a list by their ids, each with the keys, of their kinds."""
  records: dict[Any, dict[str, Any]] = {}
  for number, record in enumerate(dataset[name]):
    where = f'record {number} (from 0) of {name!r}'
    if not isinstance(record, dict):
      raise ValueError(f'{where} is {record!r:.40}: expected an object')
    for key, kind in {'id': int, **kinds}.items():
      if key not in record:
        raise ValueError(f'{where} lacks {key!r}')
      if not isinstance(record[key], kind) or isinstance(record[key], bool):
        expected = {int: 'an integer', str: 'a text'}[kind]
        raise ValueError(f'{where} has {key!r}: {record[key]!r:.40}, expected {expected}')
    if record['id'] in records:
      raise ValueError(f'{where} has the id {record["id"]} of another one')
    records[record['id']] = record
  return records


def _code(mask: Any, h: int, w: int) -> dict[str, Any]:
  """The run-length code of a segmentation."""
  from pycocotools import mask as coco_mask

  if isinstance(mask, list):
    return coco_mask.merge(coco_mask.frPyObjects(coco_masks.polygons(mask), h, w))
  return coco_mask.frPyObjects(mask, h, w) if isinstance(mask['counts'], list) else mask
