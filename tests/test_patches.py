"""Regions of photographs as classes: crops that show their region, each split with its own."""

import itertools

import numpy as np
import pytest
from patch_regions import region

from ctx_flax.configs import default
from ctx_flax.data import patches, sources


@pytest.fixture
def data():
  data = default.get_config().data
  data.update(name='patches', classes=237, images_per_class=5, image_size=32)
  return data


class Middle:
  """A generator that draws the middle of every range, and of what has none `flip` and `centre`."""

  def __init__(self, flip=False, centre=(0, 0)):
    self.flip, self.centre = flip, centre

  def integers(self, low, high, size):
    return np.array(self.centre)

  def uniform(self, low, high, size=None):
    return (low + high) / 2 if size is None else np.full(size, (low + high) / 2)

  def random(self):
    return 0.1 if self.flip else 0.9


def opened(data, split='train'):
  return sources.open_source(data, split)


def images(source):
  return np.stack([source[i]['image'] for i in range(len(source))])


def correlation(a, b):
  return np.corrcoef(np.ravel(a).astype(float), np.ravel(b).astype(float))[0, 1]


def test_training_and_test_crops_have_centres_of_their_own():
  """Every whole-numbered place within SHIFT belongs to one of them, about half to each, in fields of CELL."""
  rng = np.random.default_rng(0)
  train, test = ({patches.centre(rng, split) for _ in range(20_000)} for split in sources.SPLITS)
  places = range(-patches.SHIFT, patches.SHIFT + 1)
  assert not train & test
  assert train | test == set(itertools.product(places, places))
  assert 0.45 < len(train) / 25**2 < 0.55
  field = {(dy, dx) for dy in range(patches.CELL) for dx in range(patches.CELL)}
  assert field <= train and {(dy, dx - patches.CELL) for dy, dx in field} <= test


def test_images_use_the_centres_of_their_split(data, monkeypatch):
  used, original = [], patches.centre
  monkeypatch.setattr(patches, 'centre', lambda rng, split: used.append(original(rng, split)) or used[-1])
  centres = {}
  for split in sources.SPLITS:
    used.clear()
    images(opened(data, split))
    centres[split] = set(used)
  assert len(centres['test']) > 100 and not centres['train'] & centres['test']


@pytest.mark.parametrize('flip', [False, True])
def test_a_crop_shows_its_region(data, monkeypatch, flip):
  """With everything random at its middle: the middle CROP pixels of the region, at their own size."""
  monkeypatch.setattr(np.random, 'default_rng', lambda _: Middle(flip))
  data.image_size = patches.CROP
  source, edge = opened(data), (patches.REGION - patches.CROP) // 2
  for index in range(0, 237, 20):
    expected = region(*patches.region_list()[index])[edge:-edge, edge:-edge]
    expected = expected[:, ::-1] if flip else expected
    # Mirroring meets the pixels half a pixel off, or one: the outermost column is left out.
    found = source[index]['image']
    shift = max((correlation(found[:, 1:-1], np.roll(expected, d, 1)[:, 1:-1]), d) for d in (-1, 0, 1))
    assert shift[0] > 0.99 and source[index]['label'] == index


def test_a_crop_is_moved_by_its_centre(data, monkeypatch):
  """Down by 8 and right by 9 pixels, a place of training; half as large it is every second pixel."""
  monkeypatch.setattr(np.random, 'default_rng', lambda _: Middle(centre=(8, 9)))
  data.image_size = patches.CROP
  name, top, left = patches.region_list()[0]
  edge, side = (patches.REGION - patches.CROP) // 2, patches.CROP
  moved = patches.photograph(name)[top + edge + 8 :, left + edge + 9 :][:side, :side]
  crop = opened(data)[0]['image']
  np.testing.assert_array_equal(crop, moved)
  data.image_size = patches.CROP // 2
  np.testing.assert_array_equal(opened(data)[0]['image'], crop[::2, ::2])


def test_brightness_ends_at_white(data, monkeypatch):
  monkeypatch.setattr(np.random, 'default_rng', lambda _: Middle())
  data.image_size = patches.CROP
  plain = opened(data)[0]['image']
  monkeypatch.setattr(patches, 'GAIN', (2.0, 2.0))
  np.testing.assert_array_equal(opened(data)[0]['image'], np.minimum(2 * plain.astype(int), 255))


def test_test_crops_are_drawn_anew(data, monkeypatch):
  """Were the centres the same, they would not be the first training crops."""
  monkeypatch.setattr(patches, 'centre', lambda rng, split: (0, 0))
  train, test = opened(data), opened(data, 'test')
  assert not any(np.array_equal(train[i]['image'], test[i]['image']) for i in range(len(test)))


def test_crops_stay_at_their_region(data, monkeypatch):
  """Their sides and centres are within the bounds; at the rim of a photograph a corner may be mirrored in."""
  import cv2

  placed, original = [], cv2.warpAffine

  def warp(image, matrix, size, **options):
    assert options['borderMode'] == cv2.BORDER_REFLECT_101
    placed.append((image.shape, matrix @ corners))
    return original(image, matrix, size, **options)

  monkeypatch.setattr(cv2, 'warpAffine', warp)
  corners = np.array([[0, 0, 1], [0, 32, 1], [32, 0, 1], [32, 32, 1]]).T
  source = opened(data)
  images(source)
  beyond, sides, angles = [], [], []
  for index, ((h, w, _), (x, y)) in enumerate(placed):
    _, top, left = source.regions[index % 237]
    centre = np.array([y.mean() - top, x.mean() - left]) - patches.REGION / 2
    assert np.abs(centre).max() <= patches.SHIFT + 1e-6
    sides.append(np.hypot(x[1] - x[0], y[1] - y[0]))
    angles.append(np.degrees(np.arctan2(x[1] - x[0], y[1] - y[0])))
    beyond.append(max(-x.min(), -y.min(), x.max() - w, y.max() - h))
  for values, low, high in (
    (sides, patches.CROP / patches.SCALE[1], patches.CROP / patches.SCALE[0]),
    (angles, -patches.ROTATE, patches.ROTATE),
  ):
    assert low <= min(values) < low + 0.5 and high - 0.5 < max(values) <= high
  # Half a turned crop of the largest size, and the shift, less half a region.
  turned = np.cos(np.radians(patches.ROTATE)) + np.sin(np.radians(patches.ROTATE))
  limit = patches.CROP / patches.SCALE[0] / 2 * turned + patches.SHIFT - patches.REGION / 2
  assert limit < 14 and max(beyond) <= limit and np.mean(np.array(beyond) > 0) < 0.2


def test_images_follow_from_seed_split_and_index(data):
  data.update(classes=20, images_per_class=10)
  train, test = opened(data), opened(data, 'test')
  assert (len(train), len(test)) == (200, 40)
  found = images(train)
  assert found.shape == (200, 32, 32, 3) and found.dtype == np.uint8
  again = [train[i]['image'] for i in reversed(range(200))]
  np.testing.assert_array_equal(again[::-1], found)
  assert len({image.tobytes() for image in [*found, *images(test)]}) == 240
  for source in (train, test):
    assert [source[i]['label'] for i in range(len(source))] == [*range(20)] * (len(source) // 20)
  data.split_seed = 1
  assert not any(np.array_equal(a, b) for a, b in zip(images(opened(data)), found, strict=True))


def test_both_sides_and_all_colours_are_seen(data, monkeypatch):
  """Of one region: half the crops are mirrored, channels are brighter and darker each on its own."""
  monkeypatch.setattr(patches, 'SHIFT', 0)
  monkeypatch.setattr(patches, 'ROTATE', 0.0)
  monkeypatch.setattr(patches, 'SCALE', (1.0, 1.0))
  data.update(classes=2, images_per_class=100, image_size=patches.CROP)
  found = images(opened(data))[::2].astype(float)
  edge = (patches.REGION - patches.CROP) // 2
  shown = region(*patches.region_list()[0])[edge:-edge, edge:-edge].astype(float)
  mirrored = np.array([correlation(image, shown[:, ::-1]) > correlation(image, shown) for image in found])
  assert 0.35 < mirrored.mean() < 0.65
  ratios = found.mean((1, 2)) / shown.mean((0, 1))
  assert ratios.min() < 0.75 and ratios.max() > 1.2
  assert np.median(np.ptp(ratios, axis=1)) > 0.1


def test_classes_are_the_first_of_the_list(data):
  for classes in (2, 100, 237):
    data.classes = classes
    for split in sources.SPLITS:
      source = opened(data, split)
      assert source.regions == patches.region_list()[:classes] and source.num_classes == classes
  name, top, left = patches.region_list()[0]
  assert source.class_names[0] == f'{name} {top},{left}'


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('classes', 1, 'data.classes is 1: patches has 2 to 237'),
    ('classes', 238, 'data.classes is 238: patches has 2 to 237'),
    ('images_per_class', 0, 'data.images_per_class must be 1 or more, but is 0'),
  ],
)
@pytest.mark.parametrize('split', sources.SPLITS)
def test_what_cannot_be_made_is_refused(data, field, value, message, split):
  data[field] = value
  with pytest.raises(ValueError, match=message):
    opened(data, split)
