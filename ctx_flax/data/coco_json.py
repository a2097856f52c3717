"""A COCO annotation file as arrays: https://cocodataset.org/#format-data.

One annotation at a time is parsed, checked and turned into numbers. Its mask stays in the file, and its place
there is noted: the file of COCO's training images has half a gigabyte, several as Python objects, and is read
once, not by every worker process.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ctx_flax.data import coco_masks
from ctx_flax.data.json_scanner import EXTRA, Scanner
from ctx_flax.files import printable

# What may be wrong with an annotation by itself: code -> words. Others follow from its image.
PROBLEMS = {
  'box': 'without a box of four numbers',
  'mask': 'without a mask',
  'polygon': 'with a polygon that is not of pairs of finite numbers',
  'points': 'with polygons of fewer than three points alone',
  'counts': 'with run lengths that do not make up an image',
}
CODES = {code: number for number, code in enumerate(('', *PROBLEMS))}
ANNOTATION = np.dtype(
  [
    ('id', np.int64),
    ('image_id', np.int64),
    ('category_id', np.int64),
    ('box', np.float64, 4),  # x, y, w, h
    ('area', np.float64),
    ('crowd', np.bool_),
    ('ignore', np.bool_),
    ('rle_hw', np.int32, 2),  # (h, w) of run lengths; 0, 0 for polygons
    ('problem', np.int8),  # a value of CODES
    ('start', np.int64),  # bytes
    ('length', np.int32),
  ]
)


@dataclasses.dataclass(frozen=True)
class CocoFile:
  """What an annotation file says.

  Attributes:
    path: of the file.
    size: of the file in bytes.
    categories: (id, name) in the order of the ids.
    image_ids: int64 (n,), in the order of the file.
    image_hw: int32 (n, 2).
    image_names: n names of files.
    annotations: of dtype ANNOTATION (m,), in the order of the file; None if it has no such list.
  """

  path: str
  size: int
  categories: list[tuple[int, str]]
  image_ids: np.ndarray
  image_hw: np.ndarray
  image_names: list[str]
  annotations: np.ndarray | None


def read_coco_file(path: pathlib.Path) -> CocoFile:
  """Reads an annotation file.

  Raises:
    OSError: it is not there, or cannot be read.
    ValueError: it is no JSON or is cut short, has no images or categories, or an entry without what makes it
      one; names the file and the entry.
  """
  content = path.read_bytes()
  size, mark = len(content), len(_MARK) if content.startswith(_MARK) else 0
  text = content[mark:].decode('utf-8', 'surrogateescape')
  del content
  shown = printable(path)
  scanner = Scanner(text)
  lists: dict[str, Any] = {}
  try:
    for key in scanner.members():
      if key == 'annotations':
        lists[key] = np.fromiter(_annotations(scanner, mark, shown), ANNOTATION)
      elif key in ('images', 'categories'):
        lists[key] = [entry for entry, _, _ in scanner.items()]
      else:
        scanner.value()
  except json.JSONDecodeError as error:
    # A string that does not end is told by its beginning, half a literal too.
    rest = len(text.rstrip()) - error.pos
    cut = (rest < len('false') and error.msg != EXTRA) or error.msg.startswith('Unterminated')
    what = 'is cut short' if cut else f'is no annotation file of COCO: {error.msg}'
    raise ValueError(f'{shown} {what} at character {error.pos:,} of {len(text):,}') from None
  except RecursionError:
    raise ValueError(f'{shown} is no annotation file of COCO: its lists are too deep') from None
  missing = [key for key in ('images', 'categories') if not lists.get(key)]
  if missing:
    raise ValueError(f'{shown} lists no {" and no ".join(missing)}: it is no annotation file of COCO')
  ids, hw, names = _images(lists['images'], shown)
  categories = _categories(lists['categories'], shown)
  return CocoFile(str(path), size, categories, ids, hw, names, lists.get('annotations'))


def annotation(path: str, size: int, start: int, length: int) -> dict[str, Any]:
  """The annotation at a place of a file of `size` bytes.

  Raises:
    OSError: the file is not there, or cannot be read.
    ValueError: it is not the file that was read before.
  """
  with open(path, 'rb', buffering=0) as file:
    if os.fstat(file.fileno()).st_size == size:
      file.seek(start)
      try:
        entry = json.loads(file.read(length))
        if isinstance(entry, dict) and not coco_masks.problem(entry.get('segmentation')):
          return entry
      except ValueError:
        pass
  raise ValueError(f'{printable(path)} was changed after it was read')


def area(entry: dict[str, Any]) -> float:
  """The area of an annotation; sets of one's own often lack it: of the box then."""
  value: Any = entry.get('area')
  if _is_finite(value):
    return value
  box: Any = entry.get('bbox')
  return box[2] * box[3] if _is_box(box) else 0.0


def _annotations(scanner: Scanner, mark: int, shown: str) -> Iterator[tuple]:
  place, last = mark, 0  # the same place, in bytes and in characters
  for number, (entry, start, end) in enumerate(scanner.items(), 1):
    length = scanner.bytes_between(start, end)
    place, last = place + scanner.bytes_between(last, start), start
    yield (*_annotation(entry, number, shown), place, length)


def _annotation(entry: Any, number: int, shown: str) -> tuple:
  """The values of ANNOTATION, but for the place."""
  where = f'{shown}: annotation {number:,} of the list'
  image_id, category_id = (_whole(entry, key, where) for key in ('image_id', 'category_id'))
  own_id = entry.get('id')
  own_id = own_id if type(own_id) is int and abs(own_id) < _LARGEST else -1
  box, code = entry.get('bbox'), ''
  if not _is_box(box):
    box, code = (0.0, 0.0, 0.0, 0.0), 'box'
  mask = entry.get('segmentation')
  code = code or coco_masks.problem(mask)
  rle_hw = coco_masks.rle_hw(mask) if isinstance(mask, dict) and not code else (0, 0)
  crowd, ignore = bool(entry.get('iscrowd')), bool(entry.get('ignore'))
  return own_id, image_id, category_id, tuple(box), area(entry), crowd, ignore, rle_hw, CODES[code]


def _images(entries: list[Any], shown: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
  ids, sizes, names = [], [], []
  for number, entry in enumerate(entries, 1):
    where = f'{shown}: image {number:,} of the list'
    ids.append(_whole(entry, 'id', where))
    size = _whole(entry, 'height', where), _whole(entry, 'width', where)
    if min(size) < 1 or max(size) > coco_masks.FAR:
      raise ValueError(f'{where} has the size {size[1]} x {size[0]}')
    name = entry.get('file_name')
    if not isinstance(name, str) or not name or '\0' in name:
      raise ValueError(f'{where} has no file_name')
    sizes.append(size)
    names.append(name)
  return np.array(ids, np.int64), np.array(sizes, np.int32), names


def _categories(entries: list[Any], shown: str) -> list[tuple[int, str]]:
  categories: dict[int, str] = {}
  for number, entry in enumerate(entries, 1):
    category = _whole(entry, 'id', f'{shown}: category {number:,} of the list')
    if category in categories:
      raise ValueError(f'{shown}: the category id {category} stands there twice')
    categories[category] = printable(entry.get('name') or category)
  return sorted(categories.items())


def _whole(entry: Any, key: str, where: str) -> int:
  value = entry.get(key) if isinstance(entry, dict) else None
  if type(value) is not int or abs(value) > _LARGEST:
    raise ValueError(f'{where} has no {key} that is a whole number')
  return value


def _is_box(value: Any) -> bool:
  return isinstance(value, list) and len(value) == 4 and all(map(_is_finite, value))


def _is_finite(value: Any) -> bool:
  return type(value) in (int, float) and math.isfinite(value) and abs(value) < _LARGEST


_LARGEST = 2**53
_MARK = b'\xef\xbb\xbf'  # that some editors write in front of UTF-8
