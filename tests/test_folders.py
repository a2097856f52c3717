"""Folders of image files: which files, in which order, with which labels; every mistake is told."""

import pickle

import numpy as np
import pytest
from image_folders import contents, settings, write, write_tree
from PIL import Image

from ctx_flax.data import folders


@pytest.fixture
def tree(tmp_path):
  return write_tree(tmp_path)


# A folder per class.


def test_a_folder_without_a_split_is_divided_by_class(tmp_path):
  write(tmp_path, *(f'cat/{i}.jpg' for i in range(10)), *(f'dog/{i}.jpg' for i in range(3)))
  parts = {
    split: contents(folders.image_folder(settings(tmp_path, test_share=0.2), split))
    for split in ('train', 'test')
  }
  assert [label for _, label in parts['test']] == [0, 0, 1]  # a fifth, and at least one
  assert sorted(parts['train'] + parts['test']) == sorted(
    [(f'cat/{i}.jpg', 0) for i in range(10)] + [(f'dog/{i}.jpg', 1) for i in range(3)]
  )
  other = folders.image_folder(settings(tmp_path, test_share=0.2, split_seed=1), 'test')
  assert contents(other) != parts['test']
  write(tmp_path, 'owl/0.jpg')
  with pytest.raises(ValueError, match=r'owl holds 1 images: .*which needs two at least'):
    folders.image_folder(settings(tmp_path, test_share=0.2), 'train')
  write(tmp_path, 'train/cat/0.jpg', 'val/cat/1.jpg')  # a split of its own goes before
  assert len(folders.image_folder(settings(tmp_path, test_share=0.2), 'test')) == 1


def test_classes_and_files_are_in_the_order_of_their_names(tree):
  source = folders.image_folder(settings(tree), 'train')
  assert source.class_names == ('an owl', 'cat', 'dog') and source.num_classes == 3 and len(source) == 4
  assert contents(source) == [
    ('train/an owl/a b.JPEG', 0),
    ('train/cat/7.png', 1),
    ('train/dog/0.jpg', 2),
    ('train/dog/1.jpg', 2),
  ]
  assert type(source[0]['label']) is int


def test_labels_of_the_test_images_are_those_of_training(tree):
  """Also where the test images lack a class."""
  source = folders.image_folder(settings(tree), 'test')
  assert source.class_names == ('an owl', 'cat', 'dog')
  assert contents(source) == [('val/cat/6.jpg', 1), ('val/dog/5.jpg', 2)]


def test_images_in_folders_of_a_class_belong_to_it(tmp_path):
  write(tmp_path, 'train/cat/b/deep/1.jpg', 'train/cat/a/2.jpg', 'train/cat/c.jpg', 'train/dog/a/1.jpg')
  assert contents(folders.image_folder(settings(tmp_path), 'train')) == [
    ('train/cat/a/2.jpg', 0),
    ('train/cat/b/deep/1.jpg', 0),
    ('train/cat/c.jpg', 0),
    ('train/dog/a/1.jpg', 1),
  ]


def test_hidden_and_other_files_are_left_out(tmp_path):
  """Those that systems and notebooks leave behind, and folders of them; files beside the classes too."""
  write(
    tmp_path,
    *('train/cat/1.jpg', 'train/cat/._1.jpg', 'train/cat/.hidden.png', 'train/cat/labels.txt'),
    *('train/cat/jpg', 'train/cat/1.jpg.part', 'train/cat/.checkpoints/1.jpg', 'train/cat/a/.thumbs/2/1.jpg'),
    *('train/.git/1.jpg', 'train/stray.jpg'),
  )
  source = folders.image_folder(settings(tmp_path), 'train')
  assert source.class_names == ('cat',) and contents(source) == [('train/cat/1.jpg', 0)]


@pytest.mark.parametrize('suffix', ['jpg', 'jpeg', 'png', 'webp', 'bmp', 'tif', 'tiff', 'gif', 'ppm'])
def test_every_suffix_in_small_and_capital_letters(tmp_path, suffix):
  write(tmp_path, f'train/cat/a.{suffix}', f'train/cat/b.{suffix.upper()}')
  assert len(folders.image_folder(settings(tmp_path), 'train')) == 2


def test_linked_folders_are_followed(tmp_path):
  write(tmp_path / 'elsewhere', '1.jpg')
  (tmp_path / 'train/cat').mkdir(parents=True)
  (tmp_path / 'train/cat/linked').symlink_to(tmp_path / 'elsewhere')
  (tmp_path / 'train/dog').symlink_to(tmp_path / 'elsewhere')
  source = folders.image_folder(settings(tmp_path), 'train')
  assert [source.name(i) for i in range(2)] == ['train/cat/linked/1.jpg', 'train/dog/1.jpg']
  assert source[1] == {'encoded': b'1.jpg', 'label': 1}


def test_the_test_images_are_in_the_first_folder_that_there_is(tmp_path):
  write(tmp_path, 'train/cat/1.jpg')
  for name in ('test', 'val', 'validation'):
    write(tmp_path, f'{name}/cat/1.jpg')
    assert contents(folders.image_folder(settings(tmp_path), 'test')) == [(f'{name}/cat/1.jpg', 0)]
  # Unless one is named.
  assert folders.image_folder(settings(tmp_path, test_split='test'), 'test').name(0) == 'test/cat/1.jpg'


def test_splits_can_have_other_names_and_lie_deeper(tmp_path):
  write(tmp_path, 'images/learn/cat/1.jpg', 'images/exam/cat/2.jpg')
  data = settings(tmp_path, train_split='images/learn', test_split='images/exam')
  for split, name in (('train', 'learn/cat/1.jpg'), ('test', 'exam/cat/2.jpg')):
    source = folders.image_folder(data, split)
    assert (len(source), source.name(0)) == (1, name)
    assert source[0]['encoded'].decode() == f'images/{name}'


def test_a_test_class_that_training_lacks_is_named(tree):
  write(tree, 'val/zebra/1.jpg')
  with pytest.raises(ValueError, match=r"val holds the class 'zebra', which .*train does not"):
    folders.image_folder(settings(tree), 'test')
  folders.image_folder(settings(tree), 'train')


@pytest.mark.parametrize(
  'changes, split, message',
  [
    ({'path': ''}, 'train', 'data.path is empty: image_folder needs a folder with train/CLASS'),
    ({'path': '/no/such/folder'}, 'train', 'data.path is /no/such/folder, which is not a folder'),
    ({'train_split': 'training'}, 'train', '/training is not a folder; data.train_split names it'),
    ({'train_split': 'training'}, 'test', '/training is not a folder; data.train_split names it'),
    ({'test_split': 'testing'}, 'test', '/testing is not a folder; data.test_split names it'),
  ],
)
def test_missing_folders_are_named(tree, changes, split, message):
  with pytest.raises(FileNotFoundError, match=message):
    folders.image_folder(settings(tree, **changes), split)


def test_missing_test_images_are_told_with_the_names_that_were_tried(tmp_path):
  write(tmp_path, 'train/cat/1.jpg', 'val')
  with pytest.raises(FileNotFoundError, match='holds none of validation, val, test: name it with'):
    folders.image_folder(settings(tmp_path), 'test')


def test_splits_without_classes_or_images_are_told(tmp_path):
  write(tmp_path, 'train/1.jpg')
  with pytest.raises(ValueError, match='train holds no folders: each class needs one'):
    folders.image_folder(settings(tmp_path), 'train')
  write(tmp_path, 'train/cat/readme.txt', 'test/cat/readme.txt')
  (tmp_path / 'train/dog').mkdir()
  with pytest.raises(ValueError, match=r'train holds no image files \(\.jpg .*\) in its folders'):
    folders.image_folder(settings(tmp_path), 'train')
  write(tmp_path, 'train/cat/1.jpg')
  with pytest.raises(ValueError, match='test holds no image files'):
    folders.image_folder(settings(tmp_path), 'test')
  # A folder without images is no class.
  assert folders.image_folder(settings(tmp_path), 'train').class_names == ('cat',)


def test_the_home_folder_can_be_written_short(tree, monkeypatch):
  monkeypatch.setenv('HOME', str(tree.parent))
  assert len(folders.image_folder(settings(f'~/{tree.name}'), 'train')) == 4


# The source.


def test_a_source_reads_the_bytes_of_a_file(tmp_path):
  Image.new('RGB', (4, 3), (10, 20, 30)).save(tmp_path / 'a.png')
  source = folders.FileSource(tmp_path, ['a.png'], [1], ['x', 'y'])
  assert source[0] == {'encoded': (tmp_path / 'a.png').read_bytes(), 'label': 1}
  assert source[np.int64(0)]['label'] == 1  # as batches count


def test_a_file_that_vanished_is_an_os_error(tree):
  source = folders.image_folder(settings(tree), 'train')
  (tree / 'train/cat/7.png').unlink()
  with pytest.raises(OSError):
    source[1]
  assert source.name(1) == 'train/cat/7.png' and source[2]['label'] == 2


def test_a_pickled_source_is_as_large_as_its_names(tree):
  """A million names go to every worker process: their bytes, and a dozen for each one's end and label."""
  names = [f'train/class{i % 1000:04}/image{i:08}.jpg' for i in range(20_000)]
  source = folders.FileSource('/somewhere', names, [i % 1000 for i in range(20_000)], map(str, range(1000)))
  sent = pickle.dumps(source)
  assert len(sent) < sum(map(len, names)) + 12 * len(names) + 20_000
  received = pickle.loads(sent)
  assert [received.name(i) for i in (0, 1, 777, 19_999)] == [names[i] for i in (0, 1, 777, 19_999)]
  assert (len(received), received.num_classes, received.class_names[999]) == (20_000, 1000, '999')
  # And one of files that exist reads them.
  small = folders.image_folder(settings(tree), 'train')
  assert contents(pickle.loads(pickle.dumps(small))) == contents(small)
