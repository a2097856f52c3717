"""The source of emoji, on pictures made here."""

import types
import zipfile

import numpy as np
import pytest
from emoji_pictures import archive, halves, png

from configs import emoji as recipe
from ctx_flax.data import emoji, emoji_archive, emoji_draw, sources
from ctx_flax.data.decode import BadImage
from ctx_flax.data.emoji_styles import TEST_STYLES, TRAIN_STYLES


def data(folder, **fields):
  config = recipe.get_config()
  config.data.update({'path': str(folder), 'classes': 2, 'images_per_class': 30, 'test_images': 8} | fields)
  return config.data


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  names = emoji.class_list()[::500]
  return archive(tmp_path_factory.mktemp('emoji'), (*TRAIN_STYLES[:3], *TEST_STYLES), names)


def test_the_classes_are_a_thousand_names_and_none_that_is_excluded():
  names = emoji.class_list()
  lines = emoji.CLASSES.with_name('emoji_excluded_classes.txt').read_text().splitlines()
  excluded = [line.split(': ')[0] for line in lines]
  assert len(names) == 1000 and list(names) == sorted(set(names))
  assert len(excluded) == 58 and not set(excluded) & set(names)
  # Of pictures that two names share one name is left, and one clock face.
  for one, other in (('upwards-button', 'up-button'), ('cricket-game', 'cricket')):
    assert one in names and other in excluded
  assert [name for name in names if name.endswith(('-oclock', '-thirty'))] == ['three-oclock']


def test_fewer_classes_are_spread_over_the_list(folder):
  assert sources.open_source(data(folder), 'train').class_names == emoji.class_list()[::500]


def test_training_and_test_images_share_no_style(folder, monkeypatch):
  drawn = {'train': set(), 'test': set()}
  for split, styles in drawn.items():
    source = sources.open_source(data(folder), split)

    def picture(path, style, name, styles=styles):
      styles.add(style)
      return emoji_archive.decode(png(halves()), name)

    monkeypatch.setattr(emoji_archive, 'picture', picture)
    for index in range(len(source)):
      assert source[index]['label'] == index % 2
  assert drawn == {'train': set(TRAIN_STYLES[:3]), 'test': set(TEST_STYLES)}


def test_a_test_takes_the_styles_by_turns(folder, monkeypatch):
  styles = []
  monkeypatch.setattr(
    emoji_archive,
    'picture',
    lambda path, style, name: styles.append(style) or emoji_archive.decode(png(halves()), name),
  )
  source = sources.open_source(data(folder), 'test')
  assert len(source) == 8
  for index in range(8):
    source[index]
  assert styles == [style for style in (*TEST_STYLES, *TEST_STYLES) for _ in range(2)]
  seen = sources.open_source(data(folder, test_styles='training'), 'test')
  assert seen.styles == (TRAIN_STYLES[:3],) * 2


def test_an_image_follows_from_seed_split_and_index(folder):
  first, again = (sources.open_source(data(folder, image_size=20), 'train') for _ in range(2))
  other_seed = sources.open_source(data(folder, image_size=20, split_seed=1), 'train')
  test = sources.open_source(data(folder, image_size=20, test_styles='training'), 'test')
  image = first[4]['image']
  assert image.shape == (20, 20, 3) and image.dtype == np.uint8
  np.testing.assert_array_equal(image, again[4]['image'])
  for other in (first[6], other_seed[4], test[4]):
    assert np.abs(image.astype(int) - other['image']).mean() > 1


def test_no_image_is_mirrored_or_turned_by_more_than_15_degrees(monkeypatch):
  monkeypatch.setattr(emoji_draw, 'background', lambda size, rng: np.zeros((1, 1, 3), np.float32))
  picture = emoji_archive.decode(png(halves()), 'halves')
  y, x = np.mgrid[:64, :64]
  angles = []
  for seed in range(60):
    seen = emoji_draw.draw(picture, 64, np.random.default_rng(seed)).astype(float)
    centres = [
      np.array([(y * seen[..., c]).sum(), (x * seen[..., c]).sum()]) / seen[..., c].sum() for c in (0, 1)
    ]
    angles.append(np.degrees(np.arctan2(*(centres[1] - centres[0]))))
  assert max(map(abs, angles)) < 16 and min(angles) < -10 and max(angles) > 10


def test_a_picture_is_placed_by_its_centre(monkeypatch):
  monkeypatch.setattr(emoji_draw, 'background', lambda size, rng: np.zeros((1, 1, 3), np.float32))
  halfway = types.SimpleNamespace(
    random=lambda n: np.full(n, 0.5)
  )  # no turn, shift, blur or change of colour
  picture = emoji_archive.decode(png(halves()), 'halves')
  seen = emoji_draw.draw(picture, 30, halfway)  # 0.8 of 30 pixels: 24
  np.testing.assert_array_equal(np.flatnonzero(seen.sum((0, 2))), np.arange(2, 28))
  np.testing.assert_array_equal(seen, seen[::-1])
  assert seen[15, 4, 0] == 255 and seen[15, 4, 1] == 0 and seen[15, 25, 1] == 255 and seen[15, 25, 0] == 0


def test_what_is_transparent_shows_the_background(monkeypatch):
  monkeypatch.setattr(emoji_draw, 'background', lambda size, rng: np.full((1, 1, 3), 90, np.float32))
  clear = halves()
  clear[..., 3] = 0
  for seed in range(5):
    image = emoji_draw.draw(emoji_archive.decode(png(clear), 'clear'), 16, np.random.default_rng(seed))
    np.testing.assert_array_equal(image, 90)


def test_a_gradient_runs_from_one_colour_to_the_other():
  # Of the kind (0.5: a gradient) and the angle (0: to the right), then two colours.
  told = types.SimpleNamespace(random=lambda n: np.array([0.5, 0.0, 0.0, 0.0, 0.0, 1.0, 0.5, 0.0]))
  seen = emoji_draw.background(16, told)
  assert seen.shape == (16, 16, 3)
  np.testing.assert_allclose(seen[0], seen[-1], atol=1e-3)
  assert (np.diff(seen[0, :, 0]) >= 0).all() and seen[0, 0, 0] == 0 and seen[0, -1, 0] == 255


def test_premultiplied_pictures():
  pixels = halves()
  pixels[..., 3] = 51
  decoded = emoji_archive.decode(png(pixels), 'thin')
  assert decoded[0, 0].tolist() == [51, 0, 0, 51] and decoded[0, -1].tolist() == [0, 51, 0, 51]


def test_messages(folder, tmp_path):
  def message(kind=ValueError, split='train', where=folder, **fields):
    with pytest.raises(kind) as caught:
      sources.open_source(data(where, **fields), split)
    assert '\n' not in str(caught.value)
    return str(caught.value)

  assert 'prepare emoji DIR' in message(FileNotFoundError, where='')
  assert f'{tmp_path}/emoji_48.zip does not exist' in message(FileNotFoundError, where=tmp_path)
  assert 'emoji_96.zip does not exist' in message(FileNotFoundError, image_size=64)
  assert "data.test_styles must be one of ('unseen', 'training'), but is 'all'" in message(test_styles='all')
  assert '2 to 1000' in message(**{'classes': 1001})
  assert 'data.test_images must be 1 or more' in message(split='test', **{'test_images': 0})
  assert 'lacks 2 of 3 emoji' in message(**{'classes': 3})
  (tmp_path / 'emoji_48.zip').write_bytes(b'PK no zip')
  assert 'no zip file' in message(where=tmp_path) and 'prepare it again' in message(where=tmp_path)
  packed = archive(
    tmp_path / 'packed', TRAIN_STYLES, emoji.class_list()[::500], compression=zipfile.ZIP_DEFLATED
  )
  assert 'compressed, not stored' in message(where=packed)


def test_a_damaged_picture_is_a_bad_image(tmp_path):
  names = emoji.class_list()[::500]
  with zipfile.ZipFile(tmp_path / 'emoji_48.zip', 'w') as file:
    for style in TRAIN_STYLES:
      for name in names:
        file.writestr(f'{style}/{name}.png', b'no picture')
  source = sources.open_source(data(tmp_path), 'train')
  with pytest.raises(BadImage, match=r'emoji_48\.zip: .*\.png is no picture with alpha'):
    source[0]


@pytest.mark.parametrize('argument', ['', 'plain', 'naive', 'rerank', 'naive,classes=200', 'classes=200'])
def test_the_recipe(argument, folder):
  config = recipe.get_config(argument)
  config.data.path = str(folder)
  n = config.data.classes
  assert n == (200 if '200' in argument else 1000)
  assert config.model.class_counts == ((n, n, n) if 'naive' in argument else ())
  assert ('ctx' in config.model.name) == (argument != 'plain')
  assert (config.train.class_counts_warmup > 0) == (
    'ctx' in config.model.name and argument in ('', 'classes=200')
  )
