"""From a video to the clip that the network sees: one draw for all frames, the views of TSM."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
from encoded_images import noise
from PIL import Image
from video_frames import augmented, clip_config, numbered_frames, write_frames

from ctx_flax.data import clip_crops, clip_transforms, decode, segments, transforms

BILINEAR = Image.Resampling.BILINEAR


def train_transform(config=None, **changes):
  transform = clip_transforms.train_clip_transform(config or clip_config())
  return dataclasses.replace(transform, **changes)


@pytest.fixture
def all_frames(monkeypatch):
  """A clip is the whole video, and drawing its frames takes no random number."""
  monkeypatch.setattr(segments, 'uniform_train', lambda n, t, rng: np.arange(t))


@pytest.fixture
def element(tmp_path):
  """Four frames of 15 x 20 pixels."""
  return write_frames(tmp_path / 'video', noise(4, 15, 20, 3))


def seed_of_frames(seed):
  return int(np.random.default_rng(seed).integers(2**63))


# Training.


@pytest.mark.parametrize('seed', range(8))
def test_frames_are_augmented_as_images_with_the_same_draws(tmp_path, all_frames, seed):
  """By the transform of images, with everything on, of frames that need no resizing."""
  config = augmented(clip_config())
  config.data.update(crop_scales=(), short_side=0, image_size=16)
  frames = noise(4, 16, 16, 3)
  clip = train_transform(config)(write_frames(tmp_path, frames), np.random.default_rng(seed))
  alone = transforms.train_transform(config)
  expected = [alone({'image': frame}, np.random.default_rng(seed_of_frames(seed))) for frame in frames]
  np.testing.assert_array_equal(clip, np.stack(expected), strict=True)


@pytest.mark.parametrize('seed', range(8))
def test_the_crop_is_drawn_before_the_augmentation_and_for_all_frames(element, all_frames, seed):
  config = augmented(clip_config())
  clip = train_transform(config)(element, np.random.default_rng(seed))
  config.data.crop_scales = ()
  alone, expected = transforms.train_transform(config), []
  for frame in noise(4, 15, 20, 3):
    rng = np.random.default_rng(seed_of_frames(seed))
    box = clip_crops.multi_scale_box(16, 12, rng, 8, (1.0, 0.875, 0.75, 0.66))
    cut = Image.fromarray(frame).resize((16, 12), BILINEAR).crop(box).resize((8, 8), BILINEAR)
    expected.append(alone({'image': np.asarray(cut)}, rng))
  np.testing.assert_array_equal(clip, np.stack(expected), strict=True)


@pytest.mark.parametrize('crop', [{'crop_scales': (1.0, 0.66)}, {'crop_scale': (0.1, 0.9)}, {}])
def test_equal_frames_stay_equal(tmp_path, crop):
  config = augmented(clip_config())
  config.data.crop_scales = ()
  config.data.update(crop)
  same = write_frames(tmp_path, noise(1, 15, 20, 3).repeat(6, axis=0))
  clips = [train_transform(config)(same, np.random.default_rng(seed)) for seed in range(10)]
  assert all((clip == clip[:1]).all() for clip in clips)
  assert len({clip.tobytes() for clip in clips}) == 10


def test_the_random_resized_crop_of_images(element, all_frames, monkeypatch):
  """Whole pixels around a box that lies between them."""
  monkeypatch.setattr(clip_transforms.crops, 'random_box', lambda *_: (2.4, 3.5, 9.2, 10.0))
  clip = train_transform(crop_scale=(0.1, 0.9))(element, np.random.default_rng(0))
  for frame, found in zip(noise(4, 15, 20, 3), clip, strict=True):
    expected = Image.fromarray(frame).crop((2, 3, 10, 10)).resize((8, 8), BILINEAR)
    np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize('sampling', clip_transforms.SAMPLINGS)
def test_frames_are_drawn_by_the_sampling_and_stand_in_their_order(tmp_path, sampling):
  """A dense clip of 25 frames begins anew after the last one."""
  transform = train_transform(sampling=sampling)
  clip = transform(write_frames(tmp_path, numbered_frames(25)), np.random.default_rng(3))
  draw = segments.dense_train if sampling == 'dense' else segments.uniform_train
  numbers = draw(25, 4, np.random.default_rng(3))
  np.testing.assert_array_equal(clip, numbered_frames(25)[numbers], strict=True)


@pytest.mark.parametrize('sampling', clip_transforms.SAMPLINGS)
def test_a_clip_follows_from_the_generator_alone(tmp_path, sampling):
  """The frames that are drawn too; of another instance that was sent to a worker, in another order."""
  transform = train_transform(augmented(clip_config()), sampling=sampling)
  element = write_frames(tmp_path, noise(90, 10, 12, 3))
  clips = [transform(element, np.random.default_rng(seed)) for seed in range(6)]
  assert len({clip.tobytes() for clip in clips}) == 6
  sent = pickle.loads(pickle.dumps(transform))
  for seed in reversed(range(6)):
    np.testing.assert_array_equal(sent(element, np.random.default_rng(seed)), clips[seed], strict=True)


def test_clips_flip_as_a_whole_and_as_often_as_asked(tmp_path, all_frames):
  pixels, rng, n = noise(4, 8, 8, 3), np.random.default_rng(0), 300
  transform, element, flips = train_transform(flip=0.3), write_frames(tmp_path, pixels), 0
  for _ in range(n):
    clip = transform(element, rng)
    flipped = clip[0, 0, 0, 0] != pixels[0, 0, 0, 0]
    np.testing.assert_array_equal(clip, pixels[:, :, ::-1] if flipped else pixels)
    flips += flipped
  assert abs(flips - 0.3 * n) <= 3 * math.sqrt(n * 0.3 * 0.7)


@pytest.mark.parametrize('field', ['erasing', 'mixup', 'cutmix'])
def test_clips_are_normalised_where_that_comes_before_something_else(element, all_frames, field):
  config = augmented(clip_config())
  config.data.erasing = 0.0
  clip = train_transform(config)(element, np.random.default_rng(1))
  assert clip.shape == (4, 8, 8, 3) and clip.dtype == np.uint8
  config.data[field] = 1.0
  found = train_transform(config)(element, np.random.default_rng(1))
  assert found.dtype == np.float32
  expected = transforms.normalise(clip, config.data.mean, config.data.std)
  different = (found != expected).any(axis=-1)
  # Erasing replaces one rectangle in all frames.
  assert different.any() == (field == 'erasing') and (different == different[:1]).all()


@pytest.mark.parametrize('size, scaled', [((22, 15), (17, 12)), ((15, 22), (12, 17)), ((25, 12), (25, 12))])
def test_the_short_side_is_resized_and_the_other_rounded_down(size, scaled):
  frame = Image.fromarray(noise(size[1], size[0], 3))
  assert clip_transforms.resize_short_side(frame, 12).size == scaled
  assert clip_transforms.resize_short_side(Image.new('RGB', (160, 120)), 64).size == (85, 64)


def test_the_short_side_of_a_narrow_frame_is_not_resized_at_any_price():
  with pytest.raises(
    decode.BadImage, match=r'^1 x 20000 pixels are 256 x 5120000 at a short side of 256: to'
  ):
    clip_transforms.resize_short_side(Image.new('RGB', (1, 20_000)), 256)


def test_frames_of_different_sizes_are_a_bad_video(tmp_path):
  element = write_frames(tmp_path, [*noise(3, 8, 9, 3), noise(8, 10, 3)])
  message = '^frames differ in size: 9 x 8 and 10 x 8 pixels$'
  with pytest.raises(decode.BadImage, match=message):
    train_transform()(element, np.random.default_rng(0))
  with pytest.raises(decode.BadImage, match=message):
    clip_transforms.eval_clip_transform(clip_config())(element)


# Settings.


def test_transforms_are_made_of_the_config():
  """A value of its own in every field: none is taken from another."""
  config = clip_config(segments=5)
  fields = {'image_size': 48, 'mean': (0.1, 0.2, 0.3), 'std': (0.4, 0.5, 0.6), 'crop_scale': (0.25, 0.75)}
  fields |= {'crop_aspect': (0.5, 2.0), 'flip': 0.11, 'rotate': 12.0, 'shift': 0.13, 'scale': 0.14}
  fields |= {
    'erasing': 0.15,
    'sampling': 'twice',
    'dense_window': 77,
    'short_side': 99,
    'crop_scales': (0.9,),
  }
  config.data.update(fields)
  config.eval.crop_ratio = 0.95
  augment = dict(config.data.rand_augment)
  assert clip_transforms.train_clip_transform(config) == clip_transforms.TrainClipTransform(
    **fields, rand_augment=augment, segments=5, normalised=True
  )
  assert clip_transforms.eval_clip_transform(config, 'dense') == clip_transforms.EvalClipTransform(
    48, 0.95, 'dense', 5, 'twice', 77
  )
  assert clip_transforms.eval_clip_transform(config).views == 'center'


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    ('model.segments', 0, '1 or more, but is 0'),
    ('data.short_side', -1, r'0 \(off\) or more, but is -1'),
    ('data.crop_scales', (1.0, 0.0), r'above 0 and at most 1, but are \(1.0, 0.0\)'),
    ('data.crop_scales', (1.1,), r'above 0 and at most 1, but are \(1.1,\)'),
    ('data.sampling', 'random', r"one of \('uniform', 'dense', 'twice'\), but is 'random'"),
    ('eval.views', 'thirty', r"one of \('center', 'ten_crop', 'dense'\), but is 'thirty'"),
  ],
)
def test_settings_without_a_meaning_are_named(path, value, message):
  config = clip_config()
  clip_transforms.check_settings(config)
  config.update_from_flattened_dict({path: value})
  with pytest.raises(ValueError, match=f'^{path} must be {message}'):
    clip_transforms.check_settings(config)


def test_one_kind_of_crop_at_a_time():
  config = clip_config()
  config.data.update(crop_scales=(1.0,), crop_scale=(0.5, 1.0))
  with pytest.raises(
    ValueError, match=r'^data.crop_scales is \(1.0,\) and data.crop_scale is \(0.5, 1.0\): s'
  ):
    clip_transforms.check_settings(config)
