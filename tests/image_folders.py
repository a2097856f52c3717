"""Folders of files for tests, and the part of config.data that says where they are."""

import os
import types

IMAGE_FOLDER = {
  'name': 'image_folder',
  'image_size': 8,
  'path': '',
  'train_split': 'train',
  'test_split': '',
  'train_list': '',
  'test_list': '',
  'test_share': 0.0,
  'split_seed': 0,
}


def settings(root, **changes):
  """The fields that data.name=image_folder reads."""
  return types.SimpleNamespace(**IMAGE_FOLDER | {'path': str(root)} | changes)


def write(root, *names):
  """Makes files that hold their own names, so that it shows which one was read."""
  for name in names:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(os.fsencode(name))


def list_settings(root, **changes):
  """Those that data.name=image_list reads, with the lists train.txt and test.txt in the folder."""
  lists = {'train_list': str(root / 'train.txt'), 'test_list': str(root / 'test.txt')}
  return settings(root, name='image_list', **lists | changes)


def write_tree(root):
  """Makes a folder of three classes, of which the test images lack one."""
  write(
    root,
    *('train/dog/1.jpg', 'train/dog/0.jpg', 'train/cat/7.png', 'train/an owl/a b.JPEG'),
    *('val/dog/5.jpg', 'val/cat/6.jpg'),
  )
  return root


def contents(source):
  """[(name, label), ...], as read, not as told."""
  elements = [source[i] for i in range(len(source))]
  assert [element['encoded'].decode() for element in elements] == [source.name(i) for i in range(len(source))]
  return [(element['encoded'].decode(), element['label']) for element in elements]
