"""Characters as classes: the stored list as it was chosen, and images that follow from seed and index."""

import numpy as np
import pytest

from ctx_flax.configs import default
from ctx_flax.data import glyphs, sources

ALL_FONTS = [name for fonts in glyphs.FONTS.values() for name in fonts]


@pytest.fixture
def data():
  data = default.get_config().data
  data.update(name='glyphs', classes=20, images_per_class=10, image_size=32)
  return data


@pytest.fixture(scope='module')
def drawings():
  """font -> all classes as uint8 (1000, SIDE, SIDE)."""
  return {name: np.stack([glyphs.drawn(c, name) for c in glyphs.class_list()]) for name in ALL_FONTS}


def opened(data, split='train'):
  return sources.open_source(data, split)


def images(source, indices=None):
  return np.stack([source[i]['image'] for i in (range(len(source)) if indices is None else indices)])


def test_the_list_has_a_thousand_characters_in_an_order_that_stays(data):
  """Digits first, then Latin letters: what the first N are is part of every number reported on them."""
  names = glyphs.class_list()
  assert len(names) == len(set(names)) == 1000
  assert all(len(name) == 1 and not name.isspace() for name in names)
  assert ''.join(names[:35]) == '0123456789ABCDEFGHJKLMNOPQRSTUVWXYZ'
  assert [ord(names[i]) for i in (99, 499, 999)] == [0x418, 0x10D5, 0x1F26]
  for classes in (2, 100, 1000):
    data.classes = classes
    assert opened(data).class_names == opened(data, 'test').class_names == names[:classes]


def test_the_beginning_of_the_list_is_what_is_chosen(monkeypatch):
  monkeypatch.setattr(glyphs, 'LARGEST', 120)
  assert tuple(glyphs.choose_classes()) == glyphs.class_list()[:120]


def test_every_font_draws_every_character(drawings):
  """At least a fiftieth is ink, touching the frame it is scaled to, and no font shows its empty box."""
  for name, drawing in drawings.items():
    assert drawing.shape == (1000, glyphs.SIDE, glyphs.SIDE) and drawing.dtype == np.uint8
    assert (drawing.reshape(1000, -1) / 255).mean(1).min() > 0.02, name
    height = np.ptp([np.flatnonzero(image.any(1))[[0, -1]] for image in drawing], axis=1)
    width = np.ptp([np.flatnonzero(image.any(0))[[0, -1]] for image in drawing], axis=1)
    assert set(np.maximum(height, width)) <= {53, 54, 55}, name
    assert not any(np.array_equal(glyphs.drawn('\U0010fffd', name), image) for image in drawing), name


def test_no_two_characters_look_alike_in_any_font(drawings):
  """The means of blocks differ by no more than the pixels: they tell which of 500,000 pairs need a look."""
  for name, drawing in drawings.items():
    blocks = drawing.reshape(1000, 8, 8, 8, 8).mean((2, 4), dtype=np.float32).reshape(1000, -1) / 255
    least = np.stack([np.abs(blocks - block).mean(1) for block in blocks])
    close = np.argwhere(np.triu(least < glyphs.NEAR, 1))
    assert len(close) > 10
    pixels = drawing.astype(np.float32) / 255
    for i, j in close:
      pair = glyphs.class_list()[i] + glyphs.class_list()[j]
      assert np.abs(pixels[i] - pixels[j]).mean() >= glyphs.NEAR, f'{pair} in {name}'


def test_a_character_that_a_font_lacks_an_outline_of_is_empty():
  assert not glyphs.drawn(' ', 'DejaVuSans').any()


def test_training_and_test_have_fonts_of_their_own(data, monkeypatch):
  assert not set(glyphs.FONTS['train']) & set(glyphs.FONTS['test'])
  used, original = set(), glyphs.drawn
  monkeypatch.setattr(glyphs, 'drawn', lambda character, font: used.add(font) or original(character, font))
  for split, fonts in glyphs.FONTS.items():
    used.clear()
    images(opened(data, split))
    assert used == set(fonts)


def test_a_font_that_is_missing_is_named():
  with pytest.raises(FileNotFoundError, match=r'matplotlib does not ship Helvetica\.ttf: pip install'):
    glyphs.font_file('Helvetica')


def test_images_follow_from_seed_split_and_index(data):
  train, test = opened(data), opened(data, 'test')
  assert (len(train), len(test)) == (200, 40)
  found = images(train)
  np.testing.assert_array_equal(images(train, reversed(range(200)))[::-1], found)
  assert len({image.tobytes() for image in [*found, *images(test)]}) == 240
  data.split_seed = 1
  assert not any(np.array_equal(a, b) for a, b in zip(images(opened(data)), found, strict=True))


def test_images_of_a_class_are_many(data):
  """Image i is of class i % classes, and stays so among more images."""
  data.images_per_class = 11
  train, test = opened(data), opened(data, 'test')
  assert (len(train), len(test)) == (220, 60)  # a fifth, rounded up
  for source in (train, test):
    assert [source[i]['label'] for i in range(len(source))] == [*range(20)] * (len(source) // 20)
  data.images_per_class = 3
  np.testing.assert_array_equal(images(opened(data)), images(train, range(60)))


def test_light_on_dark_and_dark_on_light(data):
  """The corners are background; ink and paper differ by CONTRAST, less what blurring leaves of thin lines."""
  data.images_per_class = 20
  found = images(opened(data)).astype(float)
  assert found.shape == (400, 32, 32, 1)
  back = np.median(found[:, [0, 0, -1, -1], [0, -1, 0, -1], 0], axis=1)
  front = [
    max(np.percentile(image, [2, 98]), key=lambda v: abs(v - b)) for image, b in zip(found, back, strict=True)
  ]
  lighter = np.array(front) > back
  assert 0.4 < lighter.mean() < 0.6
  assert np.percentile(np.abs(front - back), 5) > glyphs.CONTRAST / 2
  assert back.min() < 20 and back.max() > 235


def test_the_character_is_large_and_hardly_ever_cut_off(data, monkeypatch):
  """Of the drawing, 0.6 to 0.9 of the side, 56 of 64 pixels are the character: 34 to 50, before turning."""
  monkeypatch.setattr(glyphs, 'NOISE', 0.0)
  data.update(image_size=64, images_per_class=20)
  sides, cut = [], []
  for image in images(opened(data))[..., 0].astype(int):
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    ink = np.abs(image - np.median(border)) > 30
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    sides.append(max(np.ptp(rows), np.ptp(columns)) + 1)
    cut.append(ink[[0, -1]].sum() + ink[:, [0, -1]].sum() > 6)
  assert 30 <= min(sides) < 38 and 54 < max(sides) <= 64
  assert np.mean(cut) < 0.03


class Middle:
  """A generator that draws the middle of every range, the first font, light on dark, and `thicker`."""

  def __init__(self, thicker=0):
    self.thicker = thicker

  def integers(self, low, high=None):
    return 0 if high is None else self.thicker

  def uniform(self, low, high, size=None):
    return (low + high) / 2 if size is None else np.full(size, (low + high) / 2)

  def random(self):
    return 0.1

  def standard_normal(self, size, dtype):
    return np.zeros(size, dtype)


def test_a_class_looks_like_its_character(data, monkeypatch):
  """With everything random at its middle, the image is the drawing made smaller."""
  monkeypatch.setattr(np.random, 'default_rng', lambda _: Middle())
  data.image_size = 64
  found = images(opened(data), range(20))[..., 0].astype(float)
  drawn = np.stack([glyphs.drawn(c, 'DejaVuSans') for c in glyphs.class_list()[:20]])
  side = round(0.75 * 64)
  for index, image in enumerate(found):
    likeness = [correlation(image[8:56, 8:56], shrunk(other, side)) for other in drawn]
    assert np.argmax(likeness) == index and likeness[index] > 0.97


def test_strokes_are_thinner_and_thicker(data, monkeypatch):
  sums = []
  for thicker in (-1, 0, 1, 2):
    monkeypatch.setattr(np.random, 'default_rng', lambda _, thicker=thicker: Middle(thicker))
    sums.append(images(opened(data), range(20)).sum((1, 2, 3), dtype=int))
  assert (np.diff(sums, axis=0) > 0).all()


def test_placing_uses_its_ranges_to_their_ends():
  """From the two columns of the matrix: turning and size of the first, and how far the second leans on it."""
  rng = np.random.default_rng(0)
  found = []
  for matrix in (glyphs._forward(rng, 128) for _ in range(500)):
    (a, b), (c, d) = matrix[:, :2]
    size = np.hypot(a, c)
    centre = matrix @ [glyphs.SIDE / 2, glyphs.SIDE / 2, 1] / 128 - 0.5
    found.append((np.degrees(np.arctan2(c, a)), (a * b + c * d) / size**2, size * glyphs.SIDE / 128, *centre))
  bounds = [(-glyphs.ROTATE, glyphs.ROTATE), (-glyphs.SHEAR, glyphs.SHEAR), glyphs.SIZE]
  bounds += [(-glyphs.SHIFT, glyphs.SHIFT)] * 2
  for values, (low, high) in zip(np.transpose(found), bounds, strict=True):
    margin = 0.02 * (high - low)
    assert low <= values.min() < low + margin and high - margin < values.max() <= high


def test_noise_is_of_every_strength(data, monkeypatch):
  """Up to a deviation of NOISE; where black and white do not cut it off."""
  noisy = images(opened(data)).astype(int)
  monkeypatch.setattr(glyphs, 'NOISE', 0.0)
  clean = images(opened(data)).astype(int)
  deviations = []
  for a, b in zip(noisy, clean, strict=True):
    inner = (b > 60) & (b < 195)
    if inner.sum() > 100:
      deviations.append((a - b)[inner].std())
  assert len(deviations) > 50
  assert min(deviations) < 2 and 18 < max(deviations) < 22


def test_test_images_are_drawn_anew(data, monkeypatch):
  """Were the fonts the same, they would not be the first training images."""
  monkeypatch.setitem(glyphs.FONTS, 'test', glyphs.FONTS['train'])
  train, test = images(opened(data), range(40)), images(opened(data, 'test'))
  assert not any(np.array_equal(a, b) for a, b in zip(train, test, strict=True))


def shrunk(image, side):
  from PIL import Image

  return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR), float)


def correlation(a, b):
  return np.corrcoef(a.ravel(), b.ravel())[0, 1]


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('classes', 1, 'data.classes is 1: glyphs has 2 to 1000'),
    ('classes', 1001, 'data.classes is 1001: glyphs has 2 to 1000'),
    ('images_per_class', 0, 'data.images_per_class must be 1 or more, but is 0'),
  ],
)
@pytest.mark.parametrize('split', sources.SPLITS)
def test_what_cannot_be_drawn_is_refused(data, field, value, message, split):
  data[field] = value
  with pytest.raises(ValueError, match=message):
    opened(data, split)
