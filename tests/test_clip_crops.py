"""Crops of clips: sizes and places of TSM, all of them drawn, none outside the frame."""

import json

import numpy as np
import pytest

from ctx_flax.data import clip_crops

SCALES = (1.0, 0.875, 0.75, 0.66)


@pytest.fixture(scope='module')
def released(golden_folder):
  """What the released code gives, by the size of the frames."""
  return json.loads((golden_folder / 'video' / 'crops.json').read_text(encoding='utf-8'))


def test_sizes_and_places_of_the_released_code(released):
  assert len(released) == 7
  for frame, values in released.items():
    width, height = map(int, frame.split('x'))
    sizes = clip_crops.multi_scale_sizes(width, height, 224, SCALES)
    assert [list(size) for size in sizes] == values['pairs_w_h'], frame
    for w, h in sizes:
      places = clip_crops.fixed_places(width, height, w, h)
      assert [list(place) for place in places] == values['offsets_x_y'][f'{w}x{h}'], frame
    corners = clip_crops.corner_places(width, height, 224)
    assert [list(place) for place in corners] == values['ten_crop_224'], frame


def test_full_resolution_places_of_the_released_code_where_videos_are_wide(released):
  wide = [frame for frame, values in released.items() if values['full_res_256'] and frame != '256x341']
  assert len(wide) == 4
  for frame in wide:
    places = clip_crops.longer_side_places(*map(int, frame.split('x')), 256)
    assert [list(place) for place in places] == released[frame]['full_res_256'], frame


def test_sizes_by_hand():
  """100 x 80 for a network of 61: 80, 70, 60 (which becomes 61), 52; neighbours only are combined."""
  assert clip_crops.multi_scale_sizes(100, 80, 61, SCALES) == [
    *[(80, 80), (70, 80)],
    *[(80, 70), (70, 70), (61, 70)],
    *[(70, 61), (61, 61), (52, 61)],
    *[(61, 52), (52, 52)],
  ]
  assert clip_crops.multi_scale_sizes(80, 100, 61, SCALES) == clip_crops.multi_scale_sizes(
    100, 80, 61, SCALES
  )


@pytest.mark.parametrize('size, side', [(47, 50), (48, 48), (49, 49), (50, 50), (51, 50), (53, 50)])
def test_sides_snap_within_two_pixels_and_inside_the_frame(size, side):
  """Of 50 pixels: 47 are too far away, and 51 do not fit."""
  assert clip_crops.multi_scale_sizes(90, 50, size, (1.0,)) == [(side, side)]


def test_places_by_hand():
  """A 4 x 6 crop of 13 x 10 moves by steps of 2 to the side, and of 1 down."""
  assert clip_crops.fixed_places(13, 10, 4, 6) == [
    *[(0, 0), (8, 0), (0, 4), (8, 4), (4, 2)],
    *[(0, 2), (8, 2), (4, 4), (4, 0)],
    *[(2, 1), (6, 1), (2, 3), (6, 3)],
  ]


def test_the_full_resolution_places_go_along_the_longer_side():
  assert clip_crops.longer_side_places(64, 32, 32) == [(0, 0), (32, 0), (16, 0)]
  assert clip_crops.longer_side_places(32, 64, 32) == [(0, 0), (0, 32), (0, 16)]
  assert clip_crops.longer_side_places(48, 64, 40) == [(4, 0), (4, 24), (4, 12)]
  assert clip_crops.longer_side_places(32, 32, 32) == [(0, 0)] * 3


@pytest.mark.parametrize('size, place', [((85, 64), (14, 4)), ((64, 87), (4, 16)), ((56, 56), (0, 0))])
def test_centre_places_by_hand(size, place):
  """Half a pixel goes to the even side: 14.5 to 14, 15.5 to 16."""
  assert clip_crops.centre_place(*size, 56) == place


def test_every_size_and_place_is_drawn_equally_often():
  rng = np.random.default_rng(0)
  counts = {}
  for _ in range(13_000):
    left, top, right, bottom = clip_crops.multi_scale_box(100, 80, rng, 61, SCALES)
    box = (right - left, bottom - top), (left, top)
    counts[box] = counts.get(box, 0) + 1
  expected = {}
  for size in clip_crops.multi_scale_sizes(100, 80, 61, SCALES):
    for place in clip_crops.fixed_places(100, 80, *size):
      expected[size, place] = expected.get((size, place), 0) + 100
  assert counts.keys() == expected.keys()
  for box, count in counts.items():
    assert abs(count - expected[box]) < 4.5 * expected[box] ** 0.5, box


@pytest.mark.parametrize('frame', [(1, 1), (3, 2), (2, 300), (223, 500), (222, 222), (341, 256)])
def test_boxes_are_inside_the_frame_and_not_empty(frame):
  """Also of frames that are a pixel or two smaller than the network's image."""
  rng = np.random.default_rng(0)
  for _ in range(200):
    left, top, right, bottom = clip_crops.multi_scale_box(*frame, rng, 224, SCALES)
    assert 0 <= left < right <= frame[0] and 0 <= top < bottom <= frame[1]
