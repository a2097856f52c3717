"""The table of sources: names, splits, and what each of them promises."""

import os
import pickle

import numpy as np
import pytest
from emoji_pictures import archive
from PIL import Image

from ctx_flax.configs import default
from ctx_flax.data import emoji, sources
from ctx_flax.data.emoji_styles import STYLES


@pytest.fixture
def data(tmp_path):
  """Small sources of every kind that needs no download."""
  data = default.get_config().data
  data.update(classes=7, images_per_class=5, image_size=16, path=str(tmp_path))
  lines = []
  for folder in ('train/a', 'train/b', 'val/a', 'val/b'):
    (tmp_path / folder).mkdir(parents=True)
    for i in range(2):
      Image.new('RGB', (9, 8), (20 * len(lines), 0, i)).save(tmp_path / folder / f'{i}.png')
      lines.append(f'{folder}/{i}.png {int(folder[-1] == "b")}\n')
  for split, part in (('train', lines[:4]), ('test', lines[4:])):
    (tmp_path / f'{split}.txt').write_text(''.join(part))
    data[f'{split}_list'] = str(tmp_path / f'{split}.txt')
  # The same images as the data set of birds lists them.
  (tmp_path / 'images').symlink_to(tmp_path)
  rows = [line.split() for line in lines]
  lists = {
    'images': [name for name, _ in rows],
    'image_class_labels': [int(label) + 1 for _, label in rows],
    'train_test_split': [int(name.startswith('train')) for name, _ in rows],
    'classes': ['a', 'b'],
  }
  for name, values in lists.items():
    (tmp_path / f'{name}.txt').write_text(''.join(f'{i} {value}\n' for i, value in enumerate(values, 1)))
  names = emoji.class_list()
  archive(tmp_path, STYLES, [names[i * len(names) // data.classes] for i in range(data.classes)])
  return data


@pytest.mark.parametrize('split', sources.SPLITS)
@pytest.mark.parametrize('name', sources.SOURCES)
def test_every_source_keeps_its_promises(data, name, split):
  """Random access in one order, labels below num_classes, and the same after pickling as workers get it."""
  data.name = name
  source = sources.open_source(data, split)
  assert len(source.class_names) == source.num_classes > 1
  assert len(set(source.class_names)) == source.num_classes
  assert all(isinstance(class_name, str) for class_name in source.class_names)
  copy = pickle.loads(pickle.dumps(source))
  assert len(copy) == len(source) and copy.class_names == source.class_names
  indices = [*range(min(len(source), 8)), len(source) - 1]
  for index in reversed(indices):
    element, again = source[index], copy[index]
    assert element.keys() == again.keys() and len(element) == 2
    assert type(element['label']) is int and 0 <= element['label'] < source.num_classes
    assert element['label'] == again['label']
    assert source.name(index) == copy.name(index)
    if 'encoded' in element:
      assert element['encoded'] == again['encoded']
    else:
      assert element['image'].dtype == np.uint8 and element['image'].ndim == 3
      np.testing.assert_array_equal(element['image'], again['image'], strict=True)
  assert len({source.name(index) for index in range(len(source))}) == len(source)


@pytest.mark.parametrize('name', sources.SOURCES)
def test_a_source_is_what_the_protocol_says(data, name):
  """Every public attribute of it and no method less; mypy compares the types."""
  data.name = name
  wanted = {'num_classes', 'class_names', '__len__', '__getitem__', 'name'}
  assert wanted <= vars(sources.Source).keys()
  public = {member for member in vars(sources.Source) if not member.startswith('_')}
  assert public <= wanted
  assert all(hasattr(sources.open_source(data, 'test'), member) for member in wanted)


@pytest.mark.parametrize('name', ['image_folder', 'image_list', 'cub'])
def test_data_that_are_not_there_are_no_typing_error(data, name):
  """A caller can tell 'not available' from a wrong name: FileNotFoundError from ValueError."""
  for path in ('', '/no/such/folder'):
    data.update(name=name, path=path)
    with pytest.raises(FileNotFoundError, match=r'data\.path is'):
      sources.open_source(data, 'train')


@pytest.mark.parametrize('name', ['glyphs', 'digits'])
def test_sources_without_files_have_sizes_to_say(data, name):
  data.name = name
  pair = [sources.open_source(data, split) for split in sources.SPLITS]
  sizes = {'glyphs': '35 training images, 7 test images, 7 classes'}
  assert sources.describe(*pair) == [sizes.get(name, '1,437 training images, 360 test images, 10 classes')]


@pytest.mark.parametrize('name', sources.SOURCES)
def test_a_source_is_small_enough_to_be_sent_to_workers(data, name):
  """The digits are 1,437 images; of the others the list, not the images, is sent."""
  data.name = name
  size = len(pickle.dumps(sources.open_source(data, 'train')))
  assert size < (1437 * 16 * 16 + 20_000 if name == 'digits' else 2_000)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    (
      'digit',
      "unknown data.name 'digit'; known: cub, digits, emoji, glyphs, .*:BUILDER; did you mean 'digits'\\?$",
    ),
    ('imagefolder', "did you mean 'image_folder'"),
    ('imagenet', "unknown data.name 'imagenet'"),
    ('xyz', "unknown data.name 'xyz'; known: cub, digits, emoji, glyphs, .*, patches and tfds:BUILDER"),
    ('', "unknown data.name ''; known: "),
    ('Glyphs', "did you mean 'glyphs'"),
  ],
)
def test_an_unknown_name_is_told_with_the_nearest(data, name, message):
  data.name = name
  with pytest.raises(ValueError, match=message):
    sources.open_source(data, 'train')


@pytest.mark.parametrize('split', ['validation', 'Train', ''])
def test_a_wrong_split_is_named(data, split):
  with pytest.raises(ValueError, match=f"split must be one of .'train', 'test'., but is '{split}'"):
    sources.open_source(data, split)


@pytest.mark.parametrize('name', [*sources.SOURCES, 'tfds:imagenet2012'])
def test_images_without_pixels_are_refused(data, name):
  data.update(name=name, image_size=0)
  with pytest.raises(ValueError, match=r'data\.image_size must be 1 or more, but is 0'):
    sources.open_source(data, 'train')


def test_tfds_has_a_prefix(data):
  data.name = 'tfds:mnist'
  with pytest.raises(FileNotFoundError, match=f'mnist is not prepared in {data.path}{os.sep}mnist'):
    sources.open_source(data, 'test')
