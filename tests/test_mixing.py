"""mixup and cutmix: the images are mixed as the labels say, by shares and rectangles of the right kind."""

import math

import numpy as np
import pytest
from scipy import stats

from ctx_flax.data import mixing

BOTH = {'mixup': 0.8, 'cutmix': 1.0, 'probability': 1.0, 'switch': 0.5}
MIXUP = BOTH | {'cutmix': 0.0}
CUTMIX = BOTH | {'mixup': 0.0}


def random_batch(b=6, h=12, w=16):
  rng = np.random.default_rng(1)
  return {
    'image': rng.normal(size=(b, h, w, 3)).astype(np.float32),
    'label': rng.permutation(100)[:b].astype(np.int32),
    'weight': np.ones(b, np.float32),
  }


def zeros_and_ones(b=2, h=12, w=16):
  """Every image of one value, 0 or 1 in turn, so that a mixed one shows the other's share."""
  image = np.zeros((b, h, w, 3), np.float32)
  image[1::2] = 1
  return {'image': image, 'label': np.arange(b, dtype=np.int32)}


def mix(batch, seed, **settings):
  """Of a copy, since mixing works in place."""
  return mixing.mix(batch | {'image': batch['image'].copy()}, np.random.default_rng(seed), **settings)


def is_cutmix(mixed):
  """Of `zeros_and_ones`: no pixel lies between the two."""
  return bool(np.isin(mixed['image'], (0, 1)).all())


def partners(b):
  """The neighbour of every row: 1 0 3 2 ..."""
  return np.arange(b) ^ 1


def test_partners_are_neighbours():
  batch = random_batch()
  for settings in (MIXUP, CUTMIX):
    mixed = mix(batch, 0, **settings)
    np.testing.assert_array_equal(mixed['label'], batch['label'])
    np.testing.assert_array_equal(mixed['other_label'], batch['label'][[1, 0, 3, 2, 5, 4]])
    assert mixed['other_label'].dtype == np.int32
    assert mixed['lam'].dtype == np.float32 and mixed['lam'].shape == (6,)
    assert len(set(mixed['lam'])) == 1
    np.testing.assert_array_equal(mixed['weight'], batch['weight'])


@pytest.mark.parametrize('seed', range(10))
def test_mixup_weighs_both_images_as_their_labels(seed):
  batch = random_batch()
  mixed = mix(batch, seed, **MIXUP)
  lam = mixed['lam'][0]
  expected = lam * batch['image'] + (1 - lam) * batch['image'][partners(6)]
  np.testing.assert_allclose(mixed['image'], expected, atol=1e-6)
  assert mixed['image'].dtype == np.float32 and 0 <= lam <= 1


@pytest.mark.parametrize('seed', range(10))
def test_cutmix_weighs_labels_by_their_true_shares_of_the_pixels(seed):
  """Of a rectangle that is cut off at the border, what is left of it."""
  batch = random_batch()
  mixed = mix(batch, seed, **CUTMIX)
  own = (mixed['image'] == batch['image']).all(axis=-1)
  other = (mixed['image'] == batch['image'][partners(6)]).all(axis=-1)
  assert (own ^ other).all()
  np.testing.assert_allclose(own.mean(axis=(1, 2)), mixed['lam'], atol=1e-6)
  # One rectangle for all images.
  assert (other == other[0]).all()
  if other.any():
    rows, columns = np.flatnonzero(other[0].any(axis=1)), np.flatnonzero(other[0].any(axis=0))
    assert other[0][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_the_rectangle_is_put_at_its_place(monkeypatch):
  """A rectangle of rows 2 to 4 and columns 5 to 11 of 12 x 16 pixels: 21 of 192."""
  monkeypatch.setattr(mixing, 'rectangle', lambda height, width, rng, lam: (2, 5, 5, 12))
  batch = random_batch()
  mixed = mix(batch, 0, **CUTMIX)
  expected = batch['image'].copy()
  expected[:, 2:5, 5:12] = batch['image'][partners(6), 2:5, 5:12]
  np.testing.assert_array_equal(mixed['image'], expected)
  np.testing.assert_allclose(mixed['lam'], 1 - 21 / 192, rtol=1e-6)


def test_images_are_mixed_in_place():
  for settings in (MIXUP, CUTMIX):
    batch = random_batch()
    before = batch['image'].copy()
    mixed = mixing.mix(batch, np.random.default_rng(1), **settings)
    assert mixed['image'] is batch['image'] and (batch['image'] != before).any()


@pytest.mark.parametrize('settings', [BOTH, MIXUP, CUTMIX])
def test_at_probability_0_nothing_is_mixed(settings):
  batch = random_batch()
  mixed = mix(batch, 0, **settings | {'probability': 0.0})
  np.testing.assert_array_equal(mixed['image'], batch['image'])
  np.testing.assert_array_equal(mixed['lam'], np.ones(6, np.float32))


def test_batches_are_mixed_as_often_as_asked():
  rng, n = np.random.default_rng(0), 2000
  mixed = sum(
    mixing.mix(zeros_and_ones(), rng, **MIXUP | {'probability': 0.3})['lam'][0] < 1 for _ in range(n)
  )
  assert abs(mixed - 0.3 * n) < 3 * math.sqrt(n * 0.3 * 0.7)


@pytest.mark.parametrize('switch', [0.0, 0.3, 1.0])
def test_cutmix_is_chosen_as_often_as_asked(switch):
  rng, n = np.random.default_rng(0), 2000
  cut = sum(is_cutmix(mixing.mix(zeros_and_ones(), rng, **BOTH | {'switch': switch})) for _ in range(n))
  assert abs(cut - switch * n) <= 3 * math.sqrt(n * switch * (1 - switch))


@pytest.mark.parametrize('switch', [0.0, 1.0])
def test_where_one_of_them_is_off_the_switch_does_not_count(switch):
  for seed in range(20):
    assert not is_cutmix(mix(zeros_and_ones(), seed, **MIXUP | {'switch': switch}))
    assert is_cutmix(mix(zeros_and_ones(), seed, **CUTMIX | {'switch': switch}))


def test_shares_are_those_of_the_beta_distributions(monkeypatch):
  """Each of its own alpha; of cutmix before the rectangle is cut off."""
  asked = []

  def rectangle(height, width, rng, lam):
    asked.append(lam)
    return 0, 0, 1, 1

  monkeypatch.setattr(mixing, 'rectangle', rectangle)
  rng, settings = np.random.default_rng(0), BOTH | {'mixup': 0.8, 'cutmix': 2.0}
  mixed = [mixing.mix(zeros_and_ones(), rng, **settings) for _ in range(4000)]
  shares = [batch['lam'][0] for batch in mixed if not is_cutmix(batch)]
  assert len(shares) > 1800 < len(asked)
  assert stats.kstest(shares, stats.beta(0.8, 0.8).cdf).pvalue > 0.01
  assert stats.kstest(asked, stats.beta(2.0, 2.0).cdf).pvalue > 0.01


class Centre:
  """A generator that draws one point."""

  def __init__(self, y, x):
    self.left = [y, x]

  def integers(self, high):
    value = self.left.pop(0)
    assert value < high
    return value


@pytest.mark.parametrize(
  'centre, lam, expected',
  [
    # A quarter of the area is half of each side: 20 x 10 of 40 x 20.
    ((20, 10), 0.75, (10, 5, 30, 15)),
    ((5, 18), 0.75, (0, 13, 15, 20)),
    ((39, 0), 0.75, (29, 0, 40, 5)),
    # Sides are cut to whole pixels, and their halves too: 13 x 6 become 12 x 6.
    ((20, 10), 1 - 1 / 9, (14, 7, 26, 13)),
    ((20, 10), 1.0, (20, 10, 20, 10)),
    ((20, 10), 0.0, (0, 0, 40, 20)),
    ((0, 0), 0.0, (0, 0, 20, 10)),
  ],
)
def test_rectangles_by_hand(centre, lam, expected):
  assert mixing.rectangle(40, 20, Centre(*centre), lam) == expected


def test_rectangles_are_centred_anywhere():
  """A quarter of 8 x 6 pixels: of 4 x 2, that is, or less at the border. Every centre is as frequent."""
  rng, n = np.random.default_rng(0), 4800
  drawn = [mixing.rectangle(8, 6, rng, 0.75) for _ in range(n)]
  expected = {}
  for y in range(8):
    for x in range(6):
      box = max(y - 2, 0), max(x - 1, 0), min(y + 2, 8), min(x + 1, 6)
      expected[box] = expected.get(box, 0) + n // 48
  assert set(drawn) == set(expected)
  assert stats.chisquare([drawn.count(box) for box in expected], list(expected.values())).pvalue > 0.01


@pytest.mark.parametrize('b', [1, 3, 7])
def test_an_odd_number_of_images_is_refused(b):
  with pytest.raises(ValueError, match=f'a process has {b} of a batch: its part must be even'):
    mix(random_batch(b), 0, **BOTH)


@pytest.mark.parametrize('settings', [BOTH, BOTH | {'probability': 0.5}, MIXUP, CUTMIX])
def test_a_part_of_a_batch_is_mixed_as_in_the_whole(settings):
  """Each of several processes mixes its own part with a generator of the same seed."""
  batch = random_batch(b=8)
  for seed in range(10):
    whole = mix(batch, seed, **settings)
    for part in (slice(0, 4), slice(4, 6), slice(6, 8)):
      alone = mix({name: x[part] for name, x in batch.items()}, seed, **settings)
      assert alone.keys() == whole.keys()
      for name in whole:
        np.testing.assert_array_equal(alone[name], whole[name][part], strict=True, err_msg=name)


def test_mixing_follows_from_the_generator_alone():
  batch = random_batch()
  shares = [mix(batch, seed, **BOTH)['lam'][0] for seed in range(20)]
  assert shares == [mix(batch, seed, **BOTH)['lam'][0] for seed in range(20)]
  assert len(set(shares)) > 15


@pytest.mark.parametrize('settings', [BOTH, MIXUP, CUTMIX])
def test_clips_are_mixed_as_their_frames(settings):
  """One share and one rectangle for all of them."""
  clips = np.random.default_rng(2).normal(size=(4, 3, 12, 16, 3)).astype(np.float32)
  labels = np.arange(4, dtype=np.int32)
  for seed in range(10):
    mixed = mix({'image': clips, 'label': labels}, seed, **settings)
    for t in range(3):
      alone = mix({'image': clips[:, t], 'label': labels}, seed, **settings)
      np.testing.assert_array_equal(mixed['image'][:, t], alone['image'], strict=True)
      np.testing.assert_array_equal(mixed['lam'], alone['lam'])
