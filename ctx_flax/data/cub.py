"""Caltech-UCSD Birds 200-2011 as it is downloaded: CUB_200_2011 with images/ and its lists."""

import os
import pathlib

from ctx_flax.data.folders import FileSource

LISTS = 'images.txt', 'image_class_labels.txt', 'train_test_split.txt', 'classes.txt'


def cub(data, split):
  """The 5,994 training or 5,794 test images of the 200 classes, by the data set's own division.

  Args:
    data: config.data; path is the folder CUB_200_2011, or the one that holds it.
    split: 'train' or 'test'.

  Raises:
    FileNotFoundError: a list is not there.
    ValueError: data.path is empty, or a list is damaged.
  """
  if not data.path:
    raise ValueError('data.path is empty: cub needs the folder CUB_200_2011 of the data set')
  root = pathlib.Path(os.path.expanduser(data.path))
  if (root / 'CUB_200_2011').is_dir():
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
  return FileSource(root / 'images', [names[number] for number in chosen], label, [classes[n] for n in order])


def _read(path):
  """{number: text} of the lines 'NUMBER TEXT'."""
  if not path.is_file():
    raise FileNotFoundError(f'{path} does not exist: data.path must be the folder CUB_200_2011')
  rows = {}
  for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
    key, space, text = line.strip().partition(' ')
    if line.strip() and not space:
      raise ValueError(f'{path}, line {number}: expected "NUMBER TEXT", found {line.strip()!r}')
    if space:
      rows[key] = text.strip()
  return rows
