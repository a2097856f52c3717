"""The views of a video in evaluation: which frames, which crops of them, in which order."""

import dataclasses

import numpy as np
import pytest
from encoded_images import noise
from PIL import Image
from video_frames import clip_config, numbered_frames, write_frames

from ctx_flax.data import clip_crops, clip_transforms, segments, transforms


def eval_transform(image_size, crop_ratio=1.0, views='center', t=1, sampling='uniform'):
  return clip_transforms.EvalClipTransform(image_size, crop_ratio, views, t, sampling, 64)


SETTINGS = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}


def assert_pixels(found, expected):
  """Another version of Pillow may round otherwise."""
  assert found.dtype == np.uint8 and found.shape == expected.shape
  assert abs(found.astype(int) - expected).max() <= 1


# The released code.


def test_views_of_the_released_code(golden, tmp_path):
  arrays = golden('video/transforms')
  element = write_frames(tmp_path, arrays['picture'][None])
  scaled = clip_transforms.resize_short_side(Image.fromarray(arrays['picture']), 64)
  assert_pixels(np.asarray(scaled), arrays['scaled_64'])
  centre = eval_transform(56, 0.875)(element)
  assert_pixels(centre[0], arrays['centre_56_of_64'])
  assert_pixels(eval_transform(56, 0.875, 'ten_crop')(element)[:, 0], arrays['ten_crop'])
  # One frame is all ten clips.
  dense = eval_transform(56, 0.875, 'dense')(element)
  assert_pixels(dense[:, 0], np.tile(arrays['full_res_3'], (10, 1, 1, 1)))


def test_the_multi_scale_crop_of_the_released_code(golden, tmp_path, monkeypatch):
  arrays = golden('video/transforms')
  w, h, x, y = arrays['multiscale_box_w_h_x_y'].tolist()
  monkeypatch.setattr(clip_crops, 'multi_scale_box', lambda *_: (x, y, x + w, y + h))
  transform = clip_transforms.train_clip_transform(clip_config(segments=1))
  transform = dataclasses.replace(transform, image_size=56, short_side=64, crop_scales=(1.0,))
  element = write_frames(tmp_path, arrays['picture'][None])
  assert_pixels(transform(element, np.random.default_rng(0))[0], arrays['multiscale_56'])


def test_normalisation_of_the_released_code(golden):
  arrays = golden('video/transforms')
  found = transforms.normalise(arrays['centre_56_of_64'][None], **SETTINGS)
  np.testing.assert_allclose(found, arrays['normalised'][None], atol=1e-6)


# By hand.


def test_a_clip_is_normalised_as_its_frames():
  frames = noise(3, 5, 7, 3)
  expected = np.stack([transforms.normalise(Image.fromarray(frame), **SETTINGS) for frame in frames])
  np.testing.assert_array_equal(transforms.normalise(frames, **SETTINGS), expected, strict=True)


def test_the_centre_of_frames_of_the_right_size(tmp_path):
  """20 x 10: the short side stays, and the middle 8 x 8 are cut out."""
  frames = noise(3, 10, 20, 3)
  clip = eval_transform(8, 0.8, t=3)(write_frames(tmp_path, frames))
  np.testing.assert_array_equal(clip, frames[:, 1:9, 6:14], strict=True)


def test_ten_crops_are_corners_and_centre_each_with_its_mirror(tmp_path):
  frames = noise(2, 10, 20, 3)
  views = eval_transform(8, 0.8, 'ten_crop', t=2)(write_frames(tmp_path, frames))
  for i, (y, x) in enumerate([(0, 0), (0, 12), (0, 0), (0, 12), (0, 6)]):
    crop = frames[:, y : y + 8, x : x + 8]
    # Two pixels of room are no full step down.
    np.testing.assert_array_equal(views[2 * i], crop)
    np.testing.assert_array_equal(views[2 * i + 1], crop[:, :, ::-1])


@pytest.mark.parametrize('portrait', [False, True])
def test_dense_views_go_along_the_longer_side(tmp_path, portrait):
  """Squares of the short side: of 10 pixels, which leaves 8 of them to the network in other views."""
  frames = noise(1, 10, 20, 3)
  frames = frames.swapaxes(1, 2) if portrait else frames
  views = eval_transform(8, 0.8, 'dense')(write_frames(tmp_path, frames))
  for view, place in zip(views[:3], (0, 8, 4), strict=True):
    along = slice(place, place + 10)
    np.testing.assert_array_equal(view, frames[:, along] if portrait else frames[:, :, along])


def test_views_of_several_clips_stand_clip_by_clip(tmp_path):
  """Of 70 frames the clips overlap, and each has its own in their order."""
  views = eval_transform(8, views='dense', t=4)(write_frames(tmp_path, numbered_frames(70)))
  numbers = segments.dense_clips(70, 4)
  assert numbers.shape == (10, 4) and len(np.unique(numbers)) < 40
  np.testing.assert_array_equal(views[:, :, 0, 0, 0], numbers.repeat(3, axis=0))


def test_several_views_of_two_clips(tmp_path):
  views = eval_transform(8, views='ten_crop', t=4, sampling='twice')(
    write_frames(tmp_path, numbered_frames(30))
  )
  numbers = segments.twice_clips(30, 4)
  np.testing.assert_array_equal(views[:, :, 3, 4, 1], numbers.repeat(10, axis=0))


def test_one_view_is_of_the_middle(tmp_path):
  """Of every segment, or of the video."""
  element = write_frames(tmp_path, numbered_frames(90))
  for sampling, numbers in (('uniform', [11, 33, 56, 78]), ('dense', [13, 29, 45, 61])):
    clip = eval_transform(8, t=4, sampling=sampling)(element)
    assert clip[:, 0, 0, 0].tolist() == numbers


@pytest.mark.parametrize(
  ('views', 'sampling', 'shape'),
  [
    ('center', 'uniform', (4, 8, 8, 3)),
    ('center', 'dense', (4, 8, 8, 3)),
    ('center', 'twice', (2, 4, 8, 8, 3)),
    ('ten_crop', 'uniform', (10, 4, 8, 8, 3)),
    ('ten_crop', 'dense', (10, 4, 8, 8, 3)),
    ('ten_crop', 'twice', (20, 4, 8, 8, 3)),
    ('dense', 'uniform', (30, 4, 9, 9, 3)),
    ('dense', 'dense', (30, 4, 9, 9, 3)),
    ('dense', 'twice', (30, 4, 9, 9, 3)),
  ],
)
@pytest.mark.parametrize('n', [1, 5, 100])
def test_shapes_are_told_beforehand_and_the_same_for_every_video(tmp_path, views, sampling, shape, n):
  """8 / 0.875 is 9.1."""
  transform = eval_transform(8, 0.875, views, 4, sampling)
  found = transform(write_frames(tmp_path, numbered_frames(n, 6, 7)))
  assert found.shape == transform.shape == shape and found.dtype == np.uint8
