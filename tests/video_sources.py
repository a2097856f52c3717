"""The part of config.data that says where videos are, for tests; see image_folders.py for files."""

import csv

from image_folders import settings


def video_settings(root, name, **changes):
  """The fields that a clip source reads, with the lists train.txt and test.txt in the folder."""
  lists = {'train_list': str(root / 'train.txt'), 'test_list': str(root / 'test.txt')}
  return settings(root, name=name, classes=40, images_per_class=1, **lists | changes)


def elements(source):
  """[(name, label), ...] of video files, as the elements say."""
  found = []
  for i in range(len(source)):
    element = source[i]
    assert element.keys() == {'video', 'label'} and type(element['label']) is int
    assert element['video'] == f'{source.root}/{source.name(i)}'
    found.append((source.name(i), element['label']))
  return found


def write_csv(path, rows, columns=('label', 'youtube_id', 'time_start', 'time_end', 'split')):
  """A csv file as Kinetics has them, of tuples in the order of the columns."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('w', newline='', encoding='utf-8') as file:
    csv.writer(file).writerows([columns, *rows])
