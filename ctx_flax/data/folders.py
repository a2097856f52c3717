"""Image files on disk: a folder per class, or one folder with a list of names and labels."""

import os
import pathlib

import numpy as np

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif', '.ppm')
TEST_SPLITS = ('validation', 'val', 'test')  # what a folder of test images is called, if not told


class FileSource:
  """Files below a folder, with their labels.

  Args:
    root: the folder.
    names: of the files, relative to it.
    labels: int (n,).
    class_names: in the order of the labels.
  """

  def __init__(self, root, names, labels, class_names):
    self.root = str(root)
    self.class_names = tuple(class_names)
    # One string and not a million: it is sent to every worker process.
    encoded = [os.fsencode(name) for name in names]
    self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    self._names = b''.join(encoded)
    self._labels = np.asarray(labels, np.int32)

  @property
  def num_classes(self):
    return len(self.class_names)

  def __len__(self):
    return len(self._labels)

  def __getitem__(self, index):
    with open(os.path.join(self.root, self.name(index)), 'rb') as file:
      return {'encoded': file.read(), 'label': int(self._labels[index])}

  def name(self, index):
    start = self._ends[index - 1] if index else 0
    return os.fsdecode(self._names[start : self._ends[index]])


def image_folder(data, split):
  """data.path/SPLIT/CLASS/**/*.jpg (and other image files); classes are the training folders, by name.

  SPLIT is data.train_split or data.test_split; '' for the latter is the first that exists of TEST_SPLITS.
  Where data.test_share is above 0 and there is no such folder to train on, the classes lie in data.path
  itself, and that share of each one's images, at least one, is drawn by data.split_seed to test on.

  Raises:
    FileNotFoundError: data.path or its split does not exist.
    ValueError: a split without classes or images, or a test class that is not a training class.
  """
  root = _root(data, 'a folder with train/CLASS/*.jpg and validation/CLASS/*.jpg')
  if data.test_share and not (root / data.train_split).is_dir():
    return _divided(root, data, split)
  train = _existing(root, data.train_split, 'data.train_split')
  classes = _classes(train)
  part = train
  if split == 'test':
    found = [name for name in TEST_SPLITS if (root / name).is_dir()]
    if not data.test_split and not found:
      raise FileNotFoundError(f'{root} holds none of {", ".join(TEST_SPLITS)}: name it with data.test_split')
    part = _existing(root, data.test_split or found[0], 'data.test_split')
    unknown = sorted(set(_classes(part)) - set(classes))
    if unknown:
      raise ValueError(f'{part} holds the class {unknown[0]!r}, which {train} does not')
  names, labels = [], []
  for label, name in enumerate(classes):
    for file in _images(part / name):
      names.append(os.path.join(part.name, name, file))
      labels.append(label)
  if not names:
    raise ValueError(f'{part} holds no image files ({" ".join(SUFFIXES)}) in its folders')
  return FileSource(part.parent, names, labels, classes)


def _divided(root, data, split):
  classes = _classes(root)
  rng = np.random.default_rng(data.split_seed)
  names, labels = [], []
  for label, name in enumerate(classes):
    files = _images(root / name)
    if len(files) < 2:
      raise ValueError(
        f'{root / name} holds {len(files)} images: data.test_share divides each class, which needs two at '
        'least, one to train and one to test on'
      )
    held_out = min(max(1, round(data.test_share * len(files))), len(files) - 1)
    order = rng.permutation(len(files))
    part = order[:held_out] if split == 'test' else order[held_out:]
    names += [os.path.join(name, files[i]) for i in sorted(part.tolist())]
    labels += [label] * len(part)
  return FileSource(root, names, labels, classes)


def image_list(data, split):
  """Files below data.path that data.train_list or data.test_list name, a line 'NAME LABEL' for each.

  Labels are numbers from 0; there are as many classes as the training list's largest label says.

  Raises:
    FileNotFoundError: data.path or a list does not exist.
    ValueError: a line that is not of this form (told with its number), or a test label beyond the classes.
  """
  root = _root(data, 'the folder that the names in the lists start from')
  names, labels = _read_list(data.train_list, 'data.train_list')
  num_classes = max(labels) + 1
  if split == 'test':
    names, labels = _read_list(data.test_list, 'data.test_list')
    if max(labels) >= num_classes:
      raise ValueError(
        f'{data.test_list} holds the label {max(labels)}, but training has {num_classes} classes'
      )
  return FileSource(root, names, labels, [str(label) for label in range(num_classes)])


def _root(data, what):
  if not data.path:
    raise ValueError(f'data.path is empty: {data.name} needs {what}')
  root = pathlib.Path(os.path.expanduser(data.path))
  if not root.is_dir():
    raise FileNotFoundError(f'data.path is {data.path}, which is not a folder: {data.name} needs {what}')
  return root


def _existing(root, name, field):
  if not (root / name).is_dir():
    raise FileNotFoundError(f'{root / name} is not a folder; {field} names it')
  return root / name


def _classes(folder):
  with os.scandir(folder) as entries:
    classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith('.'))
  if not classes:
    raise ValueError(f'{folder} holds no folders: each class needs one, with its images in it')
  return classes


def _images(folder):
  """Names of the image files below a folder, relative to it, sorted."""
  found = []
  for path, folders, files in os.walk(folder, followlinks=True):
    folders[:] = [name for name in folders if not name.startswith('.')]  # os.walk enters what is left
    inner = os.path.relpath(path, folder)
    for name in files:
      if name.lower().endswith(SUFFIXES) and not name.startswith('.'):
        found.append(name if inner == '.' else os.path.join(inner, name))
  return sorted(found)


def _read_list(path, field):
  if not path:
    raise ValueError(f'{field} is empty: image_list needs a file with a line "NAME LABEL" per image')
  path = pathlib.Path(os.path.expanduser(path))
  if not path.is_file():
    raise FileNotFoundError(f'{field} is {path}, which is not a file')
  names, labels = [], []
  with path.open(encoding='utf-8-sig', errors='surrogateescape') as lines:
    for number, line in enumerate(lines, 1):
      if not line.strip():
        continue
      name, label = ('', *line.strip().rsplit(None, 1))[-2:]
      if not name or not label.isdecimal():
        raise ValueError(
          f'{path}, line {number}: expected "NAME LABEL" with a number, found {line.strip()!r}'
        )
      names.append(name)
      labels.append(int(label))
  if not names:
    raise ValueError(f'{path} names no images')
  return names, labels
