"""A folder of files per class: which folder is which split, which are classes, which files are images."""

import dataclasses
import itertools
import os
import pathlib
import unicodedata
from typing import Any

import numpy as np

from ctx_flax.data import image_files
from ctx_flax.data.file_source import FileSource, data_folder
from ctx_flax.data.image_files import IMAGE, FileKind, LeftOut, counted, few, folder_exists
from ctx_flax.files import printable
from ctx_flax.nearest import nearest

TEST_SPLITS = ('validation', 'val', 'test')  # what a folder of test images is called, if not told
# What else it and the training folder are called, in letters of any case.
TRAIN_SPELLINGS = ('train', 'training')
TEST_SPELLINGS = (*TEST_SPLITS, 'valid', 'testing', 'evaluation', 'eval')


@dataclasses.dataclass(frozen=True)
class Classes:
  """The classes of a folder that holds a folder per class.

  Attributes:
    folder: the folder.
    files: {class: files, relative to the folder}, in the order of the folders' names. A class is the
      name of its folder in the composed normal form of Unicode: macOS writes letters with accents in another
      one, so that the same name may be two folders.
    names: of the classes, as the folders are called.
    remarks: what there is to say about the folder, a line each.
  """

  folder: pathlib.Path
  files: dict[str, list[str]]
  names: list[str]
  remarks: list[str]


def image_folder(data: Any, split: str) -> FileSource:
  """data.path/SPLIT/CLASS/**/*.jpg (and other image files); classes are the training folders, by name.

  SPLIT is data.train_split or data.test_split; '' for the latter is the first that exists of TEST_SPLITS.
  Other spellings of their defaults are recognised. Folders without images are no classes. Test folders belong
  to the class of the same name, also if one is in another normal form of Unicode.
  Where data.test_share is above 0 and there is no such folder to train on, the classes lie in data.path
  itself, and that share of each one's images, at least one, is drawn by data.split_seed to test on.

  Raises:
    FileNotFoundError: data.path is empty, or it or its split does not exist.
    ValueError: a split without classes or images, a test class that is not a training class, or a folder
      that looks like a split among classes that are to be divided.
    OSError: a folder cannot be read; names it.
  """
  return class_folders(data, split, IMAGE)


def class_folders(data: Any, split: str, kind: FileKind, source: type[FileSource] = FileSource) -> FileSource:
  """What `image_folder` says, of files of any kind, as a source of any class."""
  if not 0 <= data.test_share < 1:
    raise ValueError(f'data.test_share must be 0 (off) or more and below 1, but is {data.test_share}')
  suffix = kind.suffixes()[0]
  root = data_folder(data, f'a folder with train/CLASS/*{suffix} and validation/CLASS/*{suffix}')
  train = _train_folder(root, data)
  if train is None:
    return _divided(root, data, split, kind, source)
  if split == 'train':
    classes = _classes(train, kind)
    return _labelled(classes, classes, kind, source)
  part = _classes(_test_folder(root, data), kind)
  return _labelled(part, _classes(train, kind, all_files=False), kind, source)


def _labelled(part: Classes, train: Classes, kind: FileKind, source: type[FileSource]) -> FileSource:
  """The files of a split, with the labels of the training classes."""
  remarks = list(part.remarks)
  for key in part.files:
    if key not in train.files:
      name = printable(key)
      raise ValueError(
        f'{printable(part.folder)} holds the class {name!r}, which {printable(train.folder)} does not'
        f'{nearest(name, train.names)}'
      )
  missing = [name for name, key in zip(train.names, train.files, strict=True) if key not in part.files]
  if missing and part.files:
    remarks.append(f'{printable(part.folder)}: classes without {kind.noun}s: {few(missing)}')
  names: list[str] = []
  labels: list[int] = []
  for label, key in enumerate(train.files):
    files = part.files.get(key, [])
    names += [os.path.join(part.folder.name, file) for file in files]
    labels += [label] * len(files)
  if not names:
    raise _no_files(part.folder, kind)
  return source(part.folder.parent, names, labels, train.names, remarks)


def _no_files(folder: pathlib.Path, kind: FileKind) -> ValueError:
  return ValueError(
    f'{printable(folder)} holds no {kind.noun} files ({" ".join(kind.suffixes())}) in its folders'
  )


def _divided(
  root: pathlib.Path, data: Any, split: str, kind: FileKind, source: type[FileSource]
) -> FileSource:
  classes = _classes(root, kind)
  if not classes.files:
    raise _no_files(root, kind)
  rng = np.random.default_rng(data.split_seed)
  names: list[str] = []
  labels: list[int] = []
  for label, files in enumerate(classes.files.values()):
    if len(files) < 2:
      raise ValueError(
        f'{printable(root / classes.names[label])} holds {len(files)} {kind.noun}s: data.test_share divides '
        'each class, which needs two at least, one to train and one to test on'
      )
    held_out = min(max(1, round(data.test_share * len(files))), len(files) - 1)
    order = rng.permutation(len(files))
    part = order[:held_out] if split == 'test' else order[held_out:]
    names += [files[i] for i in sorted(part.tolist())]
    labels += [label] * len(part)
  return source(root, names, labels, classes.names, classes.remarks)


def _train_folder(root: pathlib.Path, data: Any) -> pathlib.Path | None:
  """The folder to train on; None if data.test_share divides the classes in `root` instead."""
  if folder_exists(root / data.train_split):
    return root / data.train_split
  folders = _folders(root)
  spellings = TRAIN_SPELLINGS if data.train_split in TRAIN_SPELLINGS[:1] else (data.train_split,)
  other = _spelled(folders, spellings)
  if other and (not data.test_share or _holds_folders(root / other)):
    return root / other
  if not data.test_share:
    hint = nearest(data.train_split, folders)
    if not hint and folders and not _spelled(folders, TRAIN_SPELLINGS + TEST_SPELLINGS):
      hint = (
        f' (the folders there are {few(folders)}: if they are the classes, data.test_share=0.1 divides them)'
      )
    raise FileNotFoundError(
      f'{printable(root / data.train_split)} is not a folder; data.train_split names it{hint}'
    )
  named = data.train_split, data.test_split or TEST_SPLITS[0]
  split = _spelled(folders, (*TRAIN_SPELLINGS, *TEST_SPELLINGS, *named))
  if split:
    raise ValueError(
      f'{printable(root / split)} looks like a split, but data.test_share divides the folders of '
      f'{printable(root)} as classes: move or rename it, or set data.train_split and data.test_split'
    )
  return None


def _test_folder(root: pathlib.Path, data: Any) -> pathlib.Path:
  for name in (data.test_split,) if data.test_split else TEST_SPLITS:
    if folder_exists(root / name):
      return root / name
  folders = _folders(root)
  other = _spelled(folders, (data.test_split,) if data.test_split else TEST_SPELLINGS)
  if other:
    return root / other
  if data.test_split:
    raise FileNotFoundError(
      f'{printable(root / data.test_split)} is not a folder; data.test_split names it'
      f'{nearest(data.test_split, folders)}'
    )
  raise FileNotFoundError(
    f'{printable(root)} holds none of {", ".join(TEST_SPLITS)}: name it with data.test_split'
  )


def _spelled(folders: list[str], names: tuple[str, ...]) -> str:
  """The first folder whose name is one of `names`, in their order, but for the case of letters; or ''."""
  by_name: dict[str, str] = {}
  for folder in folders:
    by_name.setdefault(folder.casefold(), folder)
  return next((by_name[name.casefold()] for name in names if name.casefold() in by_name), '')


def _folders(folder: pathlib.Path, left_out: LeftOut | None = None) -> list[str]:
  """Names of the folders in a folder, sorted, without hidden ones and links that lead back up."""
  left_out = LeftOut() if left_out is None else left_out
  names = []
  with os.scandir(folder) as opened:
    entries = sorted(opened, key=lambda entry: entry.name)
  for entry in entries:
    if image_files.is_hidden(entry.name):
      left_out.hidden[entry.name] += 1
    elif not image_files.is_folder(entry):
      left_out.files[pathlib.PurePath(entry.name).suffix.lower()] += 1
    elif entry.is_symlink() and image_files.leads_up(entry.path, folder):
      left_out.links.append(entry.name)
    else:
      names.append(entry.name)
  return names


def _holds_folders(folder: pathlib.Path) -> bool:
  return bool(_folders(folder))


def _classes(folder: pathlib.Path, kind: FileKind, all_files: bool = True) -> Classes:
  """The Classes of a folder; of each with its first file alone if not `all_files`."""
  beside, left_out = LeftOut(), LeftOut(noun=kind.noun)
  folders = _folders(folder, beside)
  if not folders:
    raise ValueError(
      f'{printable(folder)} holds no folders: each class needs one, with its {kind.noun}s in it'
    )
  by_class: dict[str, list[str]] = {}
  names, empty = [], []
  for name in folders:
    if all_files:
      files = image_files.list_files(folder / name, left_out, kind)
    else:
      files = list(itertools.islice(image_files.iterate_files(folder / name, kind=kind), 1))
    if not files:
      empty.append(name)
      continue
    key = unicodedata.normalize('NFC', name)
    if key not in by_class:
      names.append(printable(name))
    by_class.setdefault(key, []).extend(os.path.join(name, file) for file in files)
  left_out.hidden += beside.hidden
  left_out.links = beside.links + left_out.links
  lines = left_out.lines()
  if beside.files:
    lines.append(f'ignored {counted(beside.files.total(), "file")} beside the class folders')
  if empty:
    lines.append(f'class folders without {kind.noun}s: {few(empty)}')
  return Classes(folder, by_class, names, [f'{printable(folder)}: {line}' for line in lines])
