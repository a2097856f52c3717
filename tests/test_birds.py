"""CUB-200-2011 as it is distributed: its own division into training and test images."""

import pytest
from PIL import Image

from configs import linear_probe_cub
from ctx_flax.data import sources


@pytest.fixture
def birds(tmp_path):
  root = tmp_path / 'birds' / 'CUB_200_2011'
  files = {
    '1': '001.Owl/a.jpg',
    '2': '001.Owl/b.jpg',
    '3': '002.Black Wren/c.jpg',
    '4': '002.Black Wren/d.jpg',
  }
  for name in files.values():
    (root / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (50, 40)).save(root / 'images' / name)
  write = lambda name, rows: (root / name).write_text(''.join(f'{a} {b}\n' for a, b in rows))
  write('images.txt', files.items())
  write('image_class_labels.txt', zip(files, '1122', strict=True))
  write('train_test_split.txt', zip(files, '1001', strict=True))
  write('classes.txt', (('1', '001.Owl'), ('2', '002.Black Wren')))
  return root


def test_birds_by_their_own_division(birds):
  config = linear_probe_cub.get_config()
  for path in (birds, birds.parent):
    config.data.path = str(path)
    parts = {split: sources.open_source(config.data, split) for split in ('train', 'test')}
    names = {split: [source.name(i) for i in range(len(source))] for split, source in parts.items()}
    assert names == {
      'train': ['001.Owl/a.jpg', '002.Black Wren/d.jpg'],
      'test': ['001.Owl/b.jpg', '002.Black Wren/c.jpg'],
    }
    assert [parts['test'][i]['label'] for i in range(2)] == [0, 1]
    assert parts['test'].class_names == ('001.Owl', '002.Black Wren')


def test_birds_that_are_not_whole(birds):
  config = linear_probe_cub.get_config()
  with pytest.raises(FileNotFoundError, match='is empty: cub needs'):
    sources.open_source(config.data, 'train')
  config.data.path = str(birds)
  lists = birds / 'image_class_labels.txt'
  lists.write_text('1 1\n2 7\n3 2\n4 2\n')
  with pytest.raises(ValueError, match="its lists do not agree about '7'"):
    sources.open_source(config.data, 'test')
  lists.write_text('1 1\nbroken\n')
  with pytest.raises(ValueError, match='line 2: expected "NUMBER TEXT", found \'broken\''):
    sources.open_source(config.data, 'test')
  lists.unlink()
  with pytest.raises(FileNotFoundError, match=r'image_class_labels\.txt does not exist'):
    sources.open_source(config.data, 'test')
