"""What people's folders really hold: other spellings, links, hidden files, empty classes, normal forms."""

import os
import re
import unicodedata

import pytest
from image_folders import list_settings, settings, write

from ctx_flax.data import folders, image_files, lists, sources


def names(source):
  return [source.name(i) for i in range(len(source))]


def labelled(source):
  return [(source.name(i), source[i]['label']) for i in range(len(source))]


@pytest.mark.parametrize('test_share', [0.0, 0.5])
@pytest.mark.parametrize('train', ['train', 'Train', 'TRAIN', 'training', 'Training'])
@pytest.mark.parametrize(
  'test', ['validation', 'val', 'test', 'Test', 'valid', 'VALID', 'testing', 'Validation', 'eval']
)
def test_other_spellings_of_splits_are_recognised(tmp_path, train, test, test_share):
  """And never taken for classes, whatever data.test_share says."""
  write(tmp_path, f'{train}/cat/1.jpg', f'{train}/dog/2.jpg', f'{test}/dog/3.jpg')
  data = settings(tmp_path, test_share=test_share)
  source = folders.image_folder(data, 'train')
  assert labelled(source) == [(f'{train}/cat/1.jpg', 0), (f'{train}/dog/2.jpg', 1)]
  assert source.class_names == ('cat', 'dog')
  assert labelled(folders.image_folder(data, 'test')) == [(f'{test}/dog/3.jpg', 1)]


@pytest.mark.parametrize('name', ['Train', 'Test', 'valid', 'testing', 'Training', 'exam', 'learn', 'LEARN'])
def test_a_split_among_classes_that_are_divided_is_refused_by_name(tmp_path, name):
  """Test images without classes, say: they would be a class of their own."""
  write(tmp_path, *(f'{folder}/{i}.jpg' for folder in ('cat', 'dog', name) for i in range(2)))
  exact = {'train_split': 'learn', 'test_split': 'exam'} if name in ('exam', 'LEARN') else {}
  data = settings(tmp_path, test_share=0.5, **exact)
  if name == 'learn':  # a name like any other, if no field says it
    assert folders.image_folder(data, 'train').num_classes == 3
    return
  for split in sources.SPLITS:
    with pytest.raises(ValueError, match=f'/{name} looks like a split, but data.test_share divides the fold'):
      folders.image_folder(data, split)


@pytest.mark.parametrize(
  'changes, there, message',
  [
    ({'train_split': 'trian'}, 'train', r"/trian is not a folder; .*; did you mean 'train'\?$"),
    (
      {'test_split': 'validatoin'},
      'validation',
      "/validatoin is not a folder; .*; did you mean 'validation'",
    ),
    ({}, 'tiger', r'/train is not a folder; .*the folders there are tiger, zebra: .*data\.test_share=0\.1'),
  ],
)
def test_a_split_that_is_not_there_is_told_with_the_nearest(tmp_path, changes, there, message):
  write(tmp_path, f'{there}/cat/1.jpg', 'train/cat/1.jpg' if 'test_split' in changes else 'zebra/cat/1.jpg')
  with pytest.raises(FileNotFoundError, match=message):
    folders.image_folder(settings(tmp_path, **changes), 'test' if 'test_split' in changes else 'train')


@pytest.mark.parametrize('test_share', [-0.1, 1.0, float('nan')])
def test_a_share_that_is_none(tmp_path, test_share):
  with pytest.raises(ValueError, match=r'data\.test_share must be 0 \(off\) or more and below 1, but is'):
    folders.image_folder(settings(tmp_path, test_share=test_share), 'train')


def test_links_that_lead_back_up_are_not_followed(tmp_path):
  """As a class, in a class, and to itself: every real folder once, under its own name."""
  write(tmp_path, 'train/cat/b/1.jpg', 'train/dog/2.jpg')
  for link, target in (
    ('all', '.'),
    ('root', '..'),
    ('cat/up', '..'),
    ('cat/b/top', '../..'),
    ('cat/me', 'me'),
  ):
    (tmp_path / 'train' / link).symlink_to(target)
  (tmp_path / 'train/cat/a').symlink_to('b')
  source = folders.image_folder(settings(tmp_path), 'train')
  assert labelled(source) == [('train/cat/b/1.jpg', 0), ('train/dog/2.jpg', 1)]
  assert f'{tmp_path}/train: did not follow links that lead back up: all, root, up, b/top' in source.remarks


def test_what_systems_leave_behind_is_no_class_and_no_image(tmp_path):
  write(
    tmp_path,
    *('train/cat/1.jpg', 'train/cat/._1.jpg', 'train/cat/Thumbs.db', 'train/cat/@eaDir/1.jpg/thumb.jpg'),
    *('train/__MACOSX/cat/._1.jpg', 'train/.thumbs/1.jpg', 'train/@eaDir/1.jpg', 'train/lost+found/1.jpg'),
  )
  source = folders.image_folder(settings(tmp_path), 'train')
  assert source.class_names == ('cat',) and names(source) == ['train/cat/1.jpg']
  (remark,) = source.remarks
  assert remark.startswith(f'{tmp_path}/train: ignored 7 hidden or system entries (')
  assert remark.count('@eaDir') == 1


def test_folders_without_images_are_no_classes(tmp_path):
  write(
    tmp_path, 'train/cat/1.jpg', 'train/dog/readme.TXT', 'train/emu/a/2.jpg', 'train/a.csv', 'train/b.jpg'
  )
  write(tmp_path, 'val/emu/1.jpg', 'val/ant/notes')
  (tmp_path / 'val/dog').mkdir()
  train = folders.image_folder(settings(tmp_path), 'train')
  assert labelled(train) == [('train/cat/1.jpg', 0), ('train/emu/a/2.jpg', 1)]
  assert train.class_names == ('cat', 'emu')
  test = folders.image_folder(settings(tmp_path), 'test')
  assert labelled(test) == [('val/emu/1.jpg', 1)]
  assert sources.describe(train, test) == [
    '2 training images, 1 test image, 2 classes',
    f'{tmp_path}/train: ignored 1 file that is no image (.txt)',
    f'{tmp_path}/train: ignored 2 files beside the class folders',
    f'{tmp_path}/train: class folders without images: dog',
    f'{tmp_path}/val: ignored 1 file that is no image (without an ending)',
    f'{tmp_path}/val: class folders without images: ant, dog',
    f'{tmp_path}/val: classes without images: cat',
  ]
  write(tmp_path, 'val/Cat/1.jpg')
  with pytest.raises(ValueError, match=r"holds the class 'Cat', which .* does not; did you mean 'cat'\?$"):
    folders.image_folder(settings(tmp_path), 'test')


def test_what_both_sources_say_is_said_once(tmp_path):
  write(tmp_path, *(f'{name}/{i}.jpg' for name in ('cat', 'dog') for i in range(4)), 'cat/x.txt', 'emu/x.md')
  pair = [folders.image_folder(settings(tmp_path, test_share=0.25), split) for split in sources.SPLITS]
  assert sources.describe(*pair) == [
    '6 training images, 2 test images, 2 classes',
    f'{tmp_path}: ignored 2 files that are no images (.txt, .md)',
    f'{tmp_path}: class folders without images: emu',
  ]


def test_a_long_list_is_cut():
  assert image_files.few([str(i) for i in range(1205)]) == '0, 1, 2, 3, 4 and 1,200 more'


def test_classes_match_in_every_normal_form(tmp_path):
  """macOS writes é as two letters; two folders of one class are one class."""
  composed, apart = (unicodedata.normalize(form, 'café') for form in ('NFC', 'NFD'))
  assert composed != apart
  write(tmp_path, f'train/{apart}/1.jpg', 'train/dog/1.jpg', f'val/{composed}/2.jpg', f'val/{apart}/3.jpg')
  train, test = (folders.image_folder(settings(tmp_path), split) for split in sources.SPLITS)
  assert train.class_names == test.class_names == (apart, 'dog')
  assert sorted(names(test)) == sorted([f'val/{apart}/3.jpg', f'val/{composed}/2.jpg'])
  write(tmp_path, f'train/{composed}/4.jpg')
  train = folders.image_folder(settings(tmp_path), 'train')
  assert train.num_classes == 2 and labelled(train)[1] == (f'train/{composed}/4.jpg', 0)


def test_classes_of_any_bytes_have_names_that_can_be_printed(tmp_path):
  for name in (os.fsdecode(b'gr\xfcn'), 'a\nb'):
    write(tmp_path, f'train/{name}/1.jpg')
  source = folders.image_folder(settings(tmp_path), 'train')
  assert source.class_names == ('a\\nb', 'gr\\xfcn')
  assert source[1]['encoded'] == os.fsencode(source.name(1))


def test_a_folder_that_cannot_be_read_is_an_os_error_with_its_path(tmp_path, monkeypatch):
  write(tmp_path, 'train/cat/deep/1.jpg', 'train/cat/2.jpg')
  original = os.scandir

  def refuse(path):
    if str(path).endswith('deep'):
      raise PermissionError(13, 'Permission denied', str(path))
    return original(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  with pytest.raises(PermissionError, match=re.escape(str(tmp_path / 'train/cat/deep'))):
    folders.image_folder(settings(tmp_path), 'train')


def test_endings_are_those_of_photographs_that_pillow_reads():
  suffixes = image_files.image_suffixes()
  assert suffixes[:3] == ('.jpg', '.jpeg', '.png') and len(set(suffixes)) == len(suffixes)
  assert {'.jfif', '.jpe', '.jp2', '.pgm', '.ppm', '.tif', '.webp', '.bmp', '.gif', '.avif'} <= set(suffixes)
  assert not {'.pdf', '.eps', '.mpg', '.h5', '.psd', '.ico', '.pfm', '.txt', ''} & set(suffixes)
  assert image_files.is_image('A.JFIF') and not image_files.is_image('.a.jpg')


def test_a_pillow_without_a_format_does_not_take_its_files(monkeypatch):
  from PIL import features

  monkeypatch.setattr(features, 'check', lambda feature: feature != 'avif')
  assert not {'.avif', '.avifs'} & set(image_files.image_suffixes.__wrapped__())


@pytest.mark.parametrize(
  'labels, remark',
  [
    ((1, 2, 3), ': 1 class has no image: 0; labels count from 0'),
    ((0, 2, 9), ': 7 classes have no image: 1, 3, 4, 5, 6 and 2 more'),
    ((0, 1, 1), ''),
  ],
)
def test_labels_that_leave_classes_empty_are_said(tmp_path, labels, remark):
  (tmp_path / 'train.txt').write_text(''.join(f'{label}.jpg {label}\n' for label in labels))
  (tmp_path / 'test.txt').write_text('x.jpg 1\n')
  data = list_settings(tmp_path)
  assert lists.image_list(data, 'train').remarks == ((f'{tmp_path}/train.txt{remark}',) if remark else ())
  assert lists.image_list(data, 'test').remarks == ()


@pytest.mark.parametrize(
  'line, message',
  [
    ('a.jpg 99999999999', 'line 1: a label is at most 9,999,999, found 99999999999'),
    ('a\0.jpg 1', 'line 1 holds a NUL byte: save the list as UTF-8'),
  ],
)
def test_lists_that_would_fill_the_memory_or_lead_nowhere(tmp_path, line, message):
  (tmp_path / 'train.txt').write_text(f'{line}\n')
  with pytest.raises(ValueError, match=message):
    lists.image_list(list_settings(tmp_path), 'train')
