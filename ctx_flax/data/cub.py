"""Caltech-UCSD Birds 200-2011 as it is downloaded: CUB_200_2011 with images/ and its lists."""

import pathlib
from typing import Any

from ctx_flax.data.file_source import FileSource, data_folder
from ctx_flax.data.image_files import folder_exists
from ctx_flax.files import printable

LISTS = 'images.txt', 'image_class_labels.txt', 'train_test_split.txt', 'classes.txt'


def cub(data: Any, split: str) -> FileSource:
  """The 5,994 training or 5,794 test images of the 200 classes, by the data set's own division.

  Args:
    data: config.data; path is the folder CUB_200_2011, or the one that holds it.
    split: 'train' or 'test'.

  Raises:
    FileNotFoundError: data.path is empty or no folder, or a list is not there.
    ValueError: a list is damaged.
  """
  root = data_folder(data, 'the folder CUB_200_2011 of the data set')
  if folder_exists(root / 'CUB_200_2011'):
    root = root / 'CUB_200_2011'
  names, labels, division, classes = (_read(root / name) for name in LISTS)
  wanted = '1' if split == 'train' else '0'
  chosen = [number for number in names if division.get(number) == wanted]
  try:
    order = {number: i for i, number in enumerate(sorted(classes, key=int))}
    label = [order[labels[number]] for number in chosen]
  except (KeyError, ValueError) as error:
    raise ValueError(f'{root}: its lists do not agree about {error}') from None
  if not chosen:
    raise ValueError(f'{root / LISTS[2]} names no image of the {split} part')
  class_names = [printable(classes[number]) for number in order]
  return FileSource(root / 'images', [names[number] for number in chosen], label, class_names)


def _read(path: pathlib.Path) -> dict[str, str]:
  """{number: text} of the lines 'NUMBER TEXT'."""
  if not path.is_file():
    raise FileNotFoundError(f'{printable(path)} does not exist: data.path must be the folder CUB_200_2011')
  rows = {}
  for number, line in enumerate(path.read_text(encoding='utf-8', errors='surrogateescape').split('\n'), 1):
    key, space, text = line.strip().partition(' ')
    if line.strip() and not space:
      raise ValueError(
        f'{printable(path)}, line {number}: expected "NUMBER TEXT", found {printable(repr(line.strip()))}'
      )
    if space:
      rows[key] = text.strip()
  return rows
