"""The sizes that images get: the reference's rule, Swin's policy, and the largest that may be drawn."""

import numpy as np
import pytest

from ctx_flax.data.detection_draws import Augmentation, resized_hw

SWIN = Augmentation(
  flip=0.5,
  scales=(480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
  long_side=1333,
  crop_probability=0.5,
  crop_scales=(400, 500, 600),
  crop_sides=(384, 600),
)
HW = np.array([(480, 640), (640, 427), (500, 333), (33, 800), (640, 640), (64, 64), (2000, 90)])


def draws(augmentation, n=2000, seed=0):
  """n draws of every image: (image, n)."""
  drawn = augmentation.draw(np.random.default_rng(seed), np.repeat(HW, n, axis=0))
  return drawn.reshape(len(HW), n)


def test_sizes_by_hand():
  """Sides are rounded separately, and the long one decides where it must."""
  hw = np.array([(427, 640), (640, 427), (100, 500), (1, 9000)])
  expected = [(800, 1199), (1199, 800), (267, 1333), (1, 1333)]
  np.testing.assert_array_equal(resized_hw(hw, 800, 1333), np.int32(expected), strict=True)
  np.testing.assert_array_equal(resized_hw(hw[:2], np.array([800, 480]), 1333), [(800, 1199), (719, 480)])


def test_sizes_are_those_of_the_reference(golden):
  values = golden('coco/pipeline')
  for number, (scale, short) in enumerate(
    zip(values['scales'].max(-1), values['scales'].min(-1), strict=True)
  ):
    np.testing.assert_array_equal(resized_hw(values['hw'], short, scale), values['new_hw'][:, number])


def test_half_of_the_images_are_resized_to_one_of_the_scales():
  for hw, drawn in zip(HW, draws(SWIN), strict=True):
    plain = drawn[~drawn['cropped']]
    assert 900 < len(plain) < 1100
    assert (plain['first_hw'] == hw).all() and (plain['crop'] == (0, 0, *hw)).all()
    expected = {tuple(resized_hw(hw, scale, 1333)) for scale in SWIN.scales}
    sizes, counts = np.unique(plain['hw'], axis=0, return_counts=True)
    assert {tuple(size) for size in sizes} == expected
    if len(expected) == 11:
      assert counts.min() > 50 and counts.max() < 140


def test_the_others_are_cropped_between():
  for hw, drawn in zip(HW, draws(SWIN), strict=True):
    cropped = drawn[drawn['cropped']]
    firsts, counts = np.unique(cropped['first_hw'], axis=0, return_counts=True)
    assert {tuple(size) for size in firsts} == {tuple(resized_hw(hw, s, 1333)) for s in (400, 500, 600)}
    assert counts.min() > 250
    top, left, h, w = cropped['crop'].T
    for side, offset, whole in ((h, top, cropped['first_hw'][:, 0]), (w, left, cropped['first_hw'][:, 1])):
      low, high = np.minimum(whole, 384), np.minimum(whole, 600)
      assert (low <= side).all() and (side <= high).all()
      assert (offset >= 0).all() and (offset + side <= whole).all()
      if (high > low + 99).any():  # both ends are drawn, and all in equal parts
        share = ((side - low) / (high - low))[high > low + 99]
        assert share.min() < 0.02 and share.max() > 0.98 and 0.45 < share.mean() < 0.55
      room = whole - side
      if (room > 99).any():
        share = (offset / np.maximum(room, 1))[room > 99]
        assert share.min() < 0.02 and share.max() > 0.98 and 0.45 < share.mean() < 0.55
    sizes = {
      (tuple(crop), tuple(size)) for crop, size in zip(cropped['crop'][:, 2:], cropped['hw'], strict=True)
    }
    for crop, size in list(sizes)[:50]:
      assert size in {tuple(resized_hw(np.array(crop), scale, 1333)) for scale in SWIN.scales}


def test_offsets_and_sides_are_drawn_alone():
  """Each by its own numbers: no two go together."""
  drawn = draws(SWIN)[4]
  drawn = drawn[drawn['cropped'] & (drawn['first_hw'] == 600).all(-1)]
  top, left, h, w = drawn['crop'].T
  columns = [h, w, top / (601 - h), left / (601 - w), drawn['hw'].min(-1), drawn['flip']]
  correlation = np.corrcoef(np.array(columns, float)) - np.eye(len(columns))
  assert len(drawn) > 250 and np.abs(correlation).max() < 0.25


def test_flips_by_their_probability():
  assert 0.45 < draws(SWIN)['flip'].mean() < 0.55
  for value in (0.0, 1.0):
    fields = vars(SWIN) | {'flip': value}
    changed = draws(Augmentation(**fields))
    assert (changed['flip'] == value).all()
    for name in ('cropped', 'first_hw', 'crop', 'hw'):  # what is off leaves all else as it was
      np.testing.assert_array_equal(changed[name], draws(SWIN)[name])


def test_draws_follow_from_the_generator():
  assert draws(SWIN).tobytes() == draws(SWIN).tobytes() != draws(SWIN, seed=1).tobytes()
  assert (draws(SWIN, 3)['index'].ravel() == np.arange(3 * len(HW))).all()


@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'crop_probability': 0.0},
    {'crop_probability': 1.0},
    {'crop_probability': 1.0, 'crop_sides': (10, 900)},
    {'crop_probability': 1.0, 'crop_sides': (500, 500)},
    {'scales': (300,), 'long_side': 600, 'crop_scales': (100, 600)},
  ],
)
def test_no_draw_is_larger_than_the_largest(changes):
  """And in each direction some come near it: the largest are rare."""
  augmentation = Augmentation(**vars(SWIN) | changes)
  largest = augmentation.largest_hw(HW)
  for image, drawn in enumerate(draws(augmentation)):
    sizes = drawn['hw']
    assert (sizes[:, None] <= largest[:, image]).all(-1).any(-1).all()
    np.testing.assert_array_less(0.8 * largest[:, image].max(0), sizes.max(0) + 1)
