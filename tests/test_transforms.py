"""From a file to what the network sees: each step by hand, their order, their chances."""

import io
import math
import pickle

import numpy as np
import pytest
from encoded_images import noise, png
from PIL import Image

from configs import convnext_t
from ctx_flax.configs import default
from ctx_flax.data import crops, decode, erasing, rand_augment, transforms

OFF = {
  'image_size': 8,
  'mean': (0.0,),
  'std': (1 / 255,),  # with this mean and std, values stay those of the pixels
  'crop_scale': (),
  'crop_aspect': (3 / 4, 4 / 3),
  'flip': 0.0,
  'rotate': 0.0,
  'shift': 0.0,
  'scale': 0.0,
  'rand_augment': {'operations': 0, 'magnitude': 9.0, 'magnitude_std': 0.5, 'probability': 0.5},
  'erasing': 0.0,
}


def train_transform(**changes):
  return transforms.TrainTransform(**OFF | changes)


# Normalisation.


def test_normalise_by_hand():
  gray = Image.fromarray(np.array([[0, 255]], np.uint8))
  result = transforms.normalise(gray, (0.5,), (0.25,))
  np.testing.assert_allclose(result, [[[-2] * 3, [2] * 3]])
  colour = Image.fromarray(np.array([[[0, 255, 51]]], np.uint8))
  result = transforms.normalise(colour, (0.0, 0.5, 0.2), (1.0, 0.5, 0.1))
  np.testing.assert_allclose(result, [[[0, 1, 0]]], atol=1e-6)
  assert result.dtype == np.float32
  np.testing.assert_allclose(transforms.normalise(colour, (0.2,), (0.1,)), [[[-2, 8, 0]]], atol=1e-5)


def test_gray_is_repeated_before_each_channel_has_its_own_mean():
  gray = Image.fromarray(np.array([[0], [255]], np.uint8))
  result = transforms.normalise(gray, (0.0, 0.5, 1.0), (1.0, 0.5, 0.25))
  np.testing.assert_allclose(result, [[[0, -1, -4]], [[1, 1, 0]]], atol=1e-6)
  assert result.shape == (2, 1, 3) and result.dtype == np.float32


def test_normalise_is_exact_to_single_precision():
  mean, std = default.get_config().data.mean, default.get_config().data.std
  pixels = noise(16, 16, 3)
  expected = (pixels.astype(np.float64) / 255 - mean) / std
  np.testing.assert_allclose(transforms.normalise(Image.fromarray(pixels), mean, std), expected, atol=1e-6)


# Evaluation.


def test_evaluation_cuts_out_the_centre_and_normalises():
  """320 x 256 becomes 256 on its short side, that is itself, and the middle 224 x 224 are taken."""
  pixels = noise(256, 320, 3)
  transform = transforms.EvalTransform(224, 0.875, (0.5,), (0.25,))
  result = transform(png(pixels))
  np.testing.assert_allclose(result, (pixels[16:240, 48:272] / 255 - 0.5) / 0.25, atol=1e-6)
  assert result.dtype == np.float32
  np.testing.assert_array_equal(transform({'image': pixels}), result)


def test_evaluation_takes_every_kind_of_image():
  """Gray and smaller than the network's: three equal channels, enlarged."""
  transform = transforms.EvalTransform(12, 1.0, (0.0,), (1 / 255,))
  result = transform(png(np.full((6, 9), 40, np.uint8)))
  np.testing.assert_allclose(result, np.full((12, 12, 3), 40), rtol=1e-6)
  with pytest.raises(decode.BadImage):
    transform({'encoded': b'no image'})


# Training.


def test_with_everything_off_the_whole_image_is_resized():
  pixels = noise(20, 10, 3)
  expected = np.asarray(Image.fromarray(pixels).resize((8, 8), Image.Resampling.BICUBIC))
  rng = np.random.default_rng(0)
  state = rng.bit_generator.state
  result = train_transform()(png(pixels), rng)
  np.testing.assert_allclose(result, expected, atol=1e-4)
  assert result.dtype == np.float32 and rng.bit_generator.state == state


def test_the_random_crop_is_resized():
  pixels = noise(30, 40, 3)
  scale, aspect = (0.2, 0.6), (0.5, 2.0)
  box = crops.random_box(40, 30, np.random.default_rng(5), scale, aspect)
  expected = np.asarray(Image.fromarray(pixels).resize((8, 8), Image.Resampling.BICUBIC, box))
  transform = train_transform(crop_scale=scale, crop_aspect=aspect)
  np.testing.assert_allclose(transform(png(pixels), np.random.default_rng(5)), expected, atol=1e-4)


@pytest.mark.parametrize('probability', [0.3, 1.0])
def test_flips_are_as_frequent_as_asked(probability):
  pixels, rng, n = noise(8, 8, 3), np.random.default_rng(0), 1000
  transform, flips = train_transform(flip=probability), 0
  for _ in range(n):
    result = transform({'image': pixels}, rng)
    flipped = result[0, 0, 0] != pixels[0, 0, 0]
    np.testing.assert_allclose(result, pixels[:, ::-1] if flipped else pixels, atol=1e-4)
    flips += flipped
  assert abs(flips - probability * n) <= 3 * math.sqrt(n * probability * (1 - probability))


@pytest.mark.parametrize('name', ['rotate', 'shift', 'scale'])
def test_each_range_alone_turns_the_affine_map_on(name):
  ranges = dict.fromkeys(('rotate', 'shift', 'scale'), 0.0) | {name: 0.2}
  pixels = noise(8, 8, 3)
  expected = transforms.random_affine(Image.fromarray(pixels), np.random.default_rng(7), **ranges)
  result = train_transform(**ranges)({'image': pixels}, np.random.default_rng(7))
  np.testing.assert_allclose(result, np.asarray(expected), atol=1e-4)


def test_order_of_the_steps(monkeypatch):
  order = []

  def record(owner, name):
    step = getattr(owner, name)

    def recording(*arguments, **options):
      order.append(name)
      return step(*arguments, **options)

    monkeypatch.setattr(owner, name, recording)

  record(crops, 'random_box')
  record(decode, 'cut')
  record(transforms, 'random_affine')
  record(rand_augment, 'rand_augment')
  record(transforms, 'normalise')
  record(erasing, 'erase')
  transform = train_transform(
    crop_scale=(0.08, 1.0), rotate=10.0, rand_augment=OFF['rand_augment'] | {'operations': 2}, erasing=0.5
  )
  transform(png(noise(20, 20, 3)), np.random.default_rng(0))
  assert order == ['random_box', 'cut', 'random_affine', 'rand_augment', 'normalise', 'erase']


def test_erasing_comes_after_normalising():
  """White is 100 everywhere; what is erased has mean 0 and deviation 1 in these units."""
  transform = train_transform(image_size=64, mean=(0.0,), std=(0.01,), erasing=1.0)
  result = transform({'image': np.full((64, 64, 3), 255, np.uint8)}, np.random.default_rng(0))
  erased = abs(result - 100) > 1e-3
  assert 0.02 < erased.mean() < 0.34 and 0.9 < result[erased].std() < 1.1


def test_rand_augment_sees_a_flipped_rgb_image_and_fills_with_the_mean(monkeypatch):
  seen = []

  def record(image, rng, **arguments):
    seen.append((image, arguments))
    return image

  monkeypatch.setattr(rand_augment, 'rand_augment', record)
  pixels = noise(8, 8)
  settings = {'operations': 3, 'magnitude': 7.0, 'magnitude_std': 0.25, 'probability': 0.75}
  for mean, fill in (((0.485, 0.456, 0.406), (124, 116, 104)), ((0.5,), (128,) * 3), ((1.2,), (255,) * 3)):
    train_transform(flip=1.0, mean=mean, rand_augment=settings)(png(pixels), np.random.default_rng(0))
    image, arguments = seen.pop()
    assert image.mode == 'RGB' and arguments == settings | {'fill': fill}
    np.testing.assert_array_equal(np.asarray(image)[..., 1], pixels[:, ::-1])


def full_recipe():
  config = convnext_t.get_config()
  config.data.image_size = 32
  return transforms.train_transform(config)


def test_a_training_image_follows_from_the_generator_alone():
  transform, element = full_recipe(), png(noise(60, 80, 3))
  images = [transform(element, np.random.default_rng(seed)) for seed in range(20)]
  assert len({image.tobytes() for image in images}) == 20
  # The same again, of another instance that was sent to a worker, in another order.
  sent = pickle.loads(pickle.dumps(transform))
  for seed in reversed(range(20)):
    np.testing.assert_array_equal(sent(element, np.random.default_rng(seed)), images[seed], strict=True)
  assert images[0].shape == (32, 32, 3) and images[0].dtype == np.float32


def test_one_generator_gives_another_image_every_time():
  transform, element, rng = full_recipe(), png(noise(60, 80, 3)), np.random.default_rng(0)
  assert len({transform(element, rng).tobytes() for _ in range(20)}) == 20


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGBA', 'I;16'])
def test_training_takes_every_kind_of_image(mode):
  image = Image.fromarray(noise(40, 50, 3))
  image = Image.fromarray(noise(40, 50).astype(np.uint16) * 257) if mode == 'I;16' else image.convert(mode)
  file = io.BytesIO()
  image.save(file, 'PNG')
  for seed in range(10):
    result = full_recipe()({'encoded': file.getvalue()}, np.random.default_rng(seed))
    assert result.shape == (32, 32, 3) and np.isfinite(result).all()


def test_training_raises_for_what_is_no_image():
  with pytest.raises(decode.BadImage):
    full_recipe()({'encoded': b'no image'}, np.random.default_rng(0))
