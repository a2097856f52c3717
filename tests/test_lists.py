"""Lists of image files: which files, in which order, with which labels; every mistake is told."""

import re

import pytest
from image_folders import contents, list_settings, settings, write, write_tree

from ctx_flax.data import folders, lists, sources


@pytest.fixture
def tree(tmp_path):
  return write_tree(tmp_path)


@pytest.fixture
def listed(tmp_path):
  write(tmp_path, 'a.jpg', 'some where/b c.jpg', 'd.jpg', 'e.jpg')
  (tmp_path / 'train.txt').write_text('d.jpg 2\n\nsome where/b c.jpg 0\r\n  a.jpg   2  \n')
  (tmp_path / 'test.txt').write_text('e.jpg 1')
  return tmp_path


def test_files_and_labels_are_those_of_the_list_in_its_order(listed):
  """Names may hold blanks; empty lines and blanks around say nothing."""
  source = lists.image_list(list_settings(listed), 'train')
  assert contents(source) == [('d.jpg', 2), ('some where/b c.jpg', 0), ('a.jpg', 2)]
  # The largest label tells how many classes there are, whichever occur.
  assert source.num_classes == 3 and source.class_names == ('0', '1', '2')


def test_lists_may_hold_tabs_and_a_byte_order_mark(listed):
  listed.joinpath('tabs.txt').write_bytes('\ufeffa b.png\t1\nc.png 0\n'.encode())
  source = lists.image_list(list_settings(listed, train_list=str(listed / 'tabs.txt')), 'train')
  assert [source.name(i) for i in (0, 1)] == ['a b.png', 'c.png']


def test_a_test_list_has_the_classes_of_training(listed):
  source = lists.image_list(list_settings(listed), 'test')
  assert contents(source) == [('e.jpg', 1)] and source.num_classes == 3


def test_a_test_label_beyond_the_classes_is_told(listed):
  (listed / 'test.txt').write_text('e.jpg 1\ne.jpg 3\n')
  with pytest.raises(ValueError, match=r'test\.txt holds the label 3, but training has 3 classes'):
    lists.image_list(list_settings(listed), 'test')


@pytest.mark.parametrize('line', ['a.jpg', '7', 'a.jpg seven', 'a.jpg -1', 'a.jpg 1.0', '1 a.jpg', 'a.jpg ²'])
def test_lines_of_another_form_are_told_with_their_numbers(listed, line):
  (listed / 'train.txt').write_text(f'd.jpg 0\n\n{line}\nd.jpg\n', encoding='utf-8')
  message = f'train.txt, line 3: expected "NAME LABEL" with a number, found {line!r}'
  for split in ('train', 'test'):
    with pytest.raises(ValueError, match=re.escape(message)):
      lists.image_list(list_settings(listed), split)


@pytest.mark.parametrize(
  'changes, split, kind, message',
  [
    ({'train_list': ''}, 'train', ValueError, 'data.train_list is empty: image_list needs a file'),
    ({'test_list': ''}, 'test', ValueError, 'data.test_list is empty: image_list needs a file'),
    (
      {'train_list': '/no/list.txt'},
      'train',
      FileNotFoundError,
      'data.train_list is /no/list.txt, which is not',
    ),
    (
      {'test_list': '/no/list.txt'},
      'test',
      FileNotFoundError,
      'data.test_list is /no/list.txt, which is not',
    ),
    (
      {'path': ''},
      'train',
      FileNotFoundError,
      'data.path is empty: image_list needs the folder that the names',
    ),
    ({'path': '/no/folder'}, 'train', FileNotFoundError, 'data.path is /no/folder, which is not a folder'),
  ],
)
def test_missing_lists_are_named(listed, changes, split, kind, message):
  data = list_settings(listed, **changes)
  with pytest.raises(kind, match=message):
    lists.image_list(data, split)
  if 'test_list' in changes:
    lists.image_list(data, 'train')


def test_a_list_without_images_is_told(listed):
  (listed / 'train.txt').write_text('\n \n')
  with pytest.raises(ValueError, match=r'train\.txt names no images'):
    lists.image_list(list_settings(listed), 'train')


def test_lists_can_be_written_short_too(listed, monkeypatch):
  monkeypatch.setenv('HOME', str(listed))
  data = list_settings(listed, train_list='~/train.txt', test_list='~/test.txt')
  assert (len(lists.image_list(data, 'train')), len(lists.image_list(data, 'test'))) == (3, 1)


# Beside folders.


def test_names_in_any_encoding_are_found(tmp_path):
  """File names are bytes: one of Latin-1 is no UTF-8."""
  for name in ('grün.jpg'.encode('latin-1'), 'grün.jpg'.encode(), '絵.jpg'.encode()):
    (tmp_path / 'train/cat').mkdir(parents=True, exist_ok=True)
    with open(bytes(tmp_path / 'train/cat') + b'/' + name, 'wb') as file:
      file.write(name)
  (tmp_path / 'train.txt').write_bytes('grün.jpg'.encode('latin-1') + b' 0\n' + '絵.jpg 1\n'.encode())
  source = folders.image_folder(settings(tmp_path), 'train')
  for i in range(3):
    assert source[i]['encoded'] in source.name(i).encode(errors='surrogateescape')
  source = lists.image_list(list_settings(tmp_path, path=str(tmp_path / 'train/cat')), 'train')
  assert [source[i]['encoded'] for i in range(2)] == ['grün.jpg'.encode('latin-1'), '絵.jpg'.encode()]


def test_both_are_sources_by_name(tree, listed):
  assert len(sources.open_source(settings(tree), 'train')) == 4
  assert len(sources.open_source(list_settings(listed), 'train')) == 3
