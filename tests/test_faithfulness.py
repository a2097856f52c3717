"""Deletion and insertion on networks whose answer is known."""

import numpy as np

from ctx_flax.analysis import faithfulness


def share_of_ones(images):
  """A 'probability': the mean of the first channel over a quarter of the image."""
  return images[:, :2, :2, 0].mean((1, 2))


def test_deletion_of_what_counts():
  image = np.ones((4, 4, 3), np.float32)
  saliency = np.zeros((4, 4))
  saliency[:2, :2] = [[4, 3], [2, 1]]
  found = faithfulness.deletion_insertion(share_of_ones, image, saliency, 16, np.random.default_rng(0))
  np.testing.assert_allclose(found['deletion']['map'], [1, 0.75, 0.5, 0.25] + [0] * 13)
  np.testing.assert_allclose(faithfulness.area(found['deletion']['map']), (0.5 + 0.75 + 0.5 + 0.25) / 16)
  # Any other order takes as long as it takes: the mean falls slower.
  assert faithfulness.area(found['deletion']['random']) > 2 * faithfulness.area(found['deletion']['map'])
  assert found['deletion']['random'][0] == 1 and found['deletion']['random'][-1] == 0


def test_the_most_salient_pixels_go_first():
  image = np.ones((3, 3, 3), np.float32)
  saliency = np.array([[3.0, 9, 1], [5, 2, 7], [8, 4, 6]])
  seen = []
  probability = lambda images: seen.append(images) or np.zeros(len(images))
  faithfulness.deletion_insertion(probability, image, saliency, 9, np.random.default_rng(0))
  left = (seen[0][..., 0] != 0).sum(0)  # for how many of the ten points a pixel stays
  np.testing.assert_array_equal(left, 10 - saliency)


def test_insertion_begins_blurred_and_ends_with_the_image():
  rng = np.random.default_rng(1)
  image = rng.random((8, 8, 3), np.float32)
  seen = []

  def probability(images):
    seen.append(images)
    return np.zeros(len(images))

  faithfulness.deletion_insertion(probability, image, rng.random((8, 8)), 4, rng)
  deletion, insertion = seen[0], seen[1 + faithfulness.ORDERS]
  np.testing.assert_array_equal(deletion[0], image)
  np.testing.assert_array_equal(deletion[-1], np.zeros_like(image))
  np.testing.assert_array_equal(insertion[-1], image)
  np.testing.assert_allclose(insertion[0], faithfulness.blurred(image))
  assert insertion[0].std() < 0.8 * image.std()
  changed = [(frame != insertion[0]).any(-1).sum() for frame in insertion]
  assert changed == [0, 16, 32, 48, 64]


def test_points_and_areas():
  assert faithfulness.thresholds(10, 4).tolist() == [0, 2, 5, 8, 10]
  np.testing.assert_allclose(faithfulness.area([1, 1, 1]), 1)
  np.testing.assert_allclose(faithfulness.area([1, 0]), 0.5)


def test_the_seed_fixes_the_random_orders():
  image = np.ones((4, 4, 3), np.float32)
  curves = [
    faithfulness.deletion_insertion(share_of_ones, image, np.zeros((4, 4)), 8, np.random.default_rng(seed))
    for seed in (0, 0, 1)
  ]
  np.testing.assert_array_equal(curves[0]['deletion']['random'], curves[1]['deletion']['random'])
  assert not np.array_equal(curves[0]['deletion']['random'], curves[2]['deletion']['random'])


def test_pixels_of_a_clip_are_those_of_all_frames():
  """One order over both frames: the brightest of the second goes before the rest of the first."""
  clip = np.ones((2, 2, 2, 3), np.float32)
  saliency = np.array([[[8.0, 5], [4, 3]], [[7, 6], [2, 1]]])
  seen = []
  probability = lambda clips: seen.append(clips) or np.zeros(len(clips))
  faithfulness.deletion_insertion(probability, clip, saliency, 8, np.random.default_rng(0))
  np.testing.assert_array_equal((seen[0][..., 0] != 0).sum(0), 9 - saliency)
  blurred = faithfulness.blurred(np.stack([clip[0], 0 * clip[1]]))
  np.testing.assert_allclose(blurred[0], 1, atol=1e-6)
  np.testing.assert_array_equal(blurred[1], 0)
