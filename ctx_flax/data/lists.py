"""Files that a list names, with their labels."""

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from ctx_flax.data.file_source import FileSource, data_folder
from ctx_flax.data.image_files import few
from ctx_flax.files import printable

LARGEST_LABEL = 9_999_999  # a larger one is a mistake, and as many class names would fill the memory


def image_list(data: Any, split: str) -> FileSource:
  """Files below data.path that data.train_list or data.test_list name, a line 'NAME LABEL' for each.

  Labels are numbers from 0; there are as many classes as the training list's largest label says.

  Raises:
    FileNotFoundError: data.path is empty, or it or a list does not exist.
    ValueError: a line that is not of this form (told with its number), or a test label beyond the classes.
  """
  return listed_files(data, split, FileSource, ListForm('image'))


@dataclasses.dataclass(frozen=True)
class ListForm:
  """What a list looks like.

  Attributes:
    noun: what a line names.
    frames: a line may be 'NAME FRAMES LABEL' too; the number of frames is not used.
  """

  noun: str
  frames: bool = False

  @property
  def lines(self) -> str:
    """The lines that a list may have, for messages."""
    return '"NAME LABEL" or "NAME FRAMES LABEL"' if self.frames else '"NAME LABEL"'

  def parts(self, line: str) -> tuple[str, str]:
    """(name, label) of a line without blanks around; a name may hold blanks, and is '' if there is none."""
    parts = line.rsplit(None, 2)
    if self.frames and len(parts) == 3 and parts[1].isdecimal():
      return parts[0], parts[2]
    name, label = ('', *line.rsplit(None, 1))[-2:]
    return name, label


def listed_files(data: Any, split: str, source: type[FileSource], form: ListForm) -> FileSource:
  """What `image_list` says, of what any kind of list names, as a source of any class."""
  root = data_folder(data, 'the folder that the names in the lists start from')
  names, labels = _read_list(data, 'train_list', form)
  num_classes = max(labels) + 1
  remarks = _empty_classes(data.train_list, labels, num_classes, form.noun)
  if split == 'test':
    remarks = []
    names, labels = _read_list(data, 'test_list', form)
    if max(labels) >= num_classes:
      raise ValueError(
        f'{printable(data.test_list)} holds the label {max(labels)}, but training has {num_classes} classes'
      )
  return source(root, names, labels, [str(label) for label in range(num_classes)], remarks)


def _empty_classes(path: str, labels: list[int], num_classes: int, noun: str) -> list[str]:
  empty = np.flatnonzero(np.bincount(labels, minlength=num_classes) == 0).tolist()
  if not empty:
    return []
  from_one = '; labels count from 0' if empty[0] == 0 else ''
  number = '1 class has' if len(empty) == 1 else f'{len(empty):,} classes have'
  return [f'{printable(path)}: {number} no {noun}: {few([str(label) for label in empty])}{from_one}']


def _read_list(data: Any, field: str, form: ListForm) -> tuple[list[str], list[int]]:
  path = getattr(data, field)
  if not path:
    raise ValueError(
      f'data.{field} is empty: {data.name} needs a file with a line {form.lines} per {form.noun}'
    )
  file = pathlib.Path(os.path.expanduser(path))
  if not file.is_file():
    raise FileNotFoundError(f'data.{field} is {printable(file)}, which is not a file')
  names, labels = [], []
  with file.open(encoding='utf-8-sig', errors='surrogateescape') as lines:
    for number, line in enumerate(lines, 1):
      if not line.strip():
        continue
      if '\0' in line:
        raise ValueError(f'{printable(file)}, line {number} holds a NUL byte: save the list as UTF-8')
      name, label = form.parts(line.strip())
      if not name or not label.isdecimal():
        raise ValueError(
          f'{printable(file)}, line {number}: expected {form.lines} with a number, found '
          f'{printable(repr(line.strip()))}'
        )
      if len(label) > len(str(LARGEST_LABEL)) and int(label[:4300]) > LARGEST_LABEL:
        raise ValueError(
          f'{printable(file)}, line {number}: a label is at most {LARGEST_LABEL:,}, found {label:.30}'
        )
      names.append(name)
      labels.append(int(label))
  if not names:
    raise ValueError(f'{printable(file)} names no {form.noun}s')
  return names, labels
