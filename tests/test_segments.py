"""Which frames make a clip: TSM's rules, but where they take one frame for all or depend on chance."""

import numpy as np
import pytest

from ctx_flax.data import segments

LENGTHS = range(1, 81)
SIZES = (1, 3, 8, 16)
DRAWS = 3000


def draws(choose, n, t, count=DRAWS):
  rng = np.random.default_rng(n)
  return np.stack([choose(n, t, rng) for _ in range(count)])


@pytest.mark.parametrize('t', SIZES)
def test_every_rule_gives_frames_that_there_are(t):
  rng = np.random.default_rng(t)
  for n in LENGTHS:
    clips = {
      'uniform_train': (segments.uniform_train(n, t, rng), (t,)),
      'uniform_eval': (segments.uniform_eval(n, t), (t,)),
      'dense_train': (segments.dense_train(n, t, rng), (t,)),
      'dense_eval': (segments.dense_eval(n, t), (t,)),
      'dense_clips': (segments.dense_clips(n, t, 4), (4, t)),
      'twice_clips': (segments.twice_clips(n, t), (2, t)),
    }
    for rule, (frames, shape) in clips.items():
      assert frames.dtype == np.int64 and frames.shape == shape, rule
      assert frames.min() >= 0 and frames.max() < n, (rule, n)
      if 'dense' not in rule or n >= segments.WINDOW:
        assert (np.diff(frames) >= 0).all(), (rule, n)


@pytest.mark.parametrize('t', SIZES)
def test_each_segment_gives_one_frame(t):
  rng = np.random.default_rng(0)
  for n in range(t, 81):
    segment = np.arange(t)
    np.testing.assert_array_equal(segments.uniform_train(n, t, rng) // (n // t), segment)
    np.testing.assert_array_equal((segments.uniform_eval(n, t) + 0.5) * t // n, segment)


def test_every_frame_of_a_segment_is_drawn_and_alone():
  """17 frames are 8 segments of 2 and one frame that is never drawn; each segment draws for itself."""
  frames = draws(segments.uniform_train, 17, 8, 200)
  assert set(frames.ravel()) == set(range(16))
  assert len({tuple(clip % 2) for clip in frames}) > 50


def test_every_place_of_a_window_is_drawn():
  """Also the last one, where the window ends with the video."""
  for n in (64, 65, 70):
    assert set(draws(segments.dense_train, n, 8, 200)[:, 0]) == set(range(n - 63))


@pytest.mark.parametrize(
  'frames, expected',
  [
    (lambda: segments.uniform_eval(24, 8), [1, 4, 7, 10, 13, 16, 19, 22]),
    (lambda: segments.uniform_eval(3, 8), [0, 0, 0, 1, 1, 2, 2, 2]),
    (lambda: segments.uniform_eval(8, 8), [0, 1, 2, 3, 4, 5, 6, 7]),
    (lambda: segments.uniform_train(3, 8, None), [0, 0, 1, 1, 2, 2, 2, 2]),
    (lambda: segments.uniform_train(1, 3, None), [0, 0, 0]),
    (lambda: segments.dense_eval(100, 8), [18, 26, 34, 42, 50, 58, 66, 74]),
    (lambda: segments.dense_eval(16, 8), [0, 8, 0, 8, 0, 8, 0, 8]),
    (lambda: segments.dense_clips(100, 2, 4), [[0, 32], [12, 44], [24, 56], [36, 68]]),
    (lambda: segments.dense_clips(100, 2, 1), [[0, 32]]),
    (lambda: segments.dense_eval(100, 8, 32), [34, 38, 42, 46, 50, 54, 58, 62]),
    (lambda: segments.dense_clips(100, 2, 3, window=32), [[0, 16], [34, 50], [68, 84]]),
    (lambda: segments.dense_clips(9, 4, 1, window=2), [[0, 1, 2, 3]]),
    (lambda: segments.twice_clips(16, 4), [[2, 6, 10, 14], [0, 4, 8, 12]]),
  ],
)
def test_hand_values(frames, expected):
  np.testing.assert_array_equal(frames(), expected)


def test_a_clip_depends_on_its_generator_alone():
  for choose in (segments.uniform_train, segments.dense_train):
    first, again = (choose(300, 8, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (choose(300, 8, np.random.default_rng(6)) != first).any()


def test_rules_by_name():
  n, t = 100, 8
  for sampling in segments.SAMPLINGS:
    draw = segments.dense_train if sampling == 'dense' else segments.uniform_train
    frames = segments.train_segments(n, t, np.random.default_rng(1), sampling)
    np.testing.assert_array_equal(frames, draw(n, t, np.random.default_rng(1)))
  for sampling, clips in (
    ('uniform', segments.uniform_eval(n, t)[None]),
    ('dense', segments.dense_clips(n, t, 10)),
    ('twice', segments.twice_clips(n, t)),
  ):
    np.testing.assert_array_equal(segments.test_segments(n, t, sampling), clips, strict=True)
  short = segments.test_segments(n, t, 'dense', 32)
  np.testing.assert_array_equal(short, segments.dense_clips(n, t, window=32))
  last = max(segments.train_segments(n, t, np.random.default_rng(i), 'dense', 16)[-1] for i in range(400))
  assert last == 84 + 7 * 2
  for choose in (segments.test_segments, lambda *a: segments.train_segments(*a[:2], None, a[2])):
    with pytest.raises(ValueError, match=r"^sampling is 'dens': it must be one of uniform, dense, twice$"):
      choose(n, t, 'dens')


@pytest.mark.parametrize('n, t', [(0, 8), (5, 0)])
def test_nothing_to_take_is_named(n, t):
  for choose in (segments.uniform_eval, segments.dense_eval, segments.dense_clips, segments.twice_clips):
    with pytest.raises(ValueError, match=f'n={n}, t={t}: a clip takes 1 frame or more'):
      choose(n, t)


@pytest.mark.parametrize('t', [8, 16])
def test_the_released_rules(golden, t):
  arrays = golden('video/segments')
  for row, n in enumerate(arrays['num_frames'].tolist()):
    expect = lambda name, row=row: arrays[f'{name}_{t}'][row]
    np.testing.assert_array_equal(segments.uniform_eval(n, t), expect('test_uniform'))
    np.testing.assert_array_equal(segments.dense_clips(n, t).ravel(), expect('test_dense'))
    np.testing.assert_array_equal(segments.twice_clips(n, t).ravel(), expect('test_twice'))
    if n > t:  # else ours is the rule of the test
      np.testing.assert_array_equal(segments.uniform_eval(n, t), expect('val_uniform'))


@pytest.mark.parametrize('t', [8, 16])
def test_the_released_draws(golden, t):
  """Ranges and means of 3,000 draws of another generator."""
  arrays = golden('video/segments')
  for n in (1, 7, 8, 17, 31, 64, 65, 66, 70, 300):
    row = arrays['num_frames'].tolist().index(n)
    low, high, mean = (
      {rule: arrays[f'train_{rule}_{t}_{what}'][row] for rule in ('uniform', 'dense')}
      for what in ('min', 'max', 'mean')
    )
    if n >= t:
      frames = draws(segments.uniform_train, n, t)
      np.testing.assert_array_equal(frames.min(0), low['uniform'])
      np.testing.assert_array_equal(frames.max(0), high['uniform'])
      _assert_same_mean(frames, mean['uniform'])
    frames = draws(segments.dense_train, n, t)
    further = int(n > segments.WINDOW)  # the last place for the window, which TSM leaves out
    np.testing.assert_array_equal(frames.min(0), low['dense'])
    np.testing.assert_array_equal(frames.max(0), high['dense'] + further)
    _assert_same_mean(frames, mean['dense'] + further / 2)


def _assert_same_mean(frames, mean):
  # Means of 3,000 draws, both: one pair in a million differs by five standard errors.
  error = frames.std(0) * np.sqrt(2 / DRAWS)
  assert (np.abs(frames.mean(0) - mean) <= 5 * error + 1e-3).all()
