"""Which frames of a video make a clip: numbers from 0, of `n` frames the video has and `t` the clip takes.

Three ways, as the temporal shift module does it (TSM, Lin et al., ICCV 2019, and its repository
mit-han-lab/temporal-shift-module): uniform takes one frame of each of `t` equal segments, dense takes every
(64 // t)-th frame of a window of 64, and twice takes two frames of each segment to test, a clip each.

All are int64. Everything random comes from the generator that is passed in.
"""

import numpy as np

WINDOW = 64  # frames that a dense clip spans
SAMPLINGS = ('uniform', 'dense', 'twice')


def train_segments(
  n: int, t: int, rng: np.random.Generator, sampling: str = 'uniform', window: int = WINDOW
) -> np.ndarray:
  """(t,): frames to train on. Where 'twice' is how to test, training is uniform."""
  _check_sampling(sampling)
  return dense_train(n, t, rng, window) if sampling == 'dense' else uniform_train(n, t, rng)


def test_segments(n: int, t: int, sampling: str = 'uniform', window: int = WINDOW) -> np.ndarray:
  """(clips, t): frames to test on; one clip if uniform, ten if dense, two if twice."""
  _check_sampling(sampling)
  if sampling == 'dense':
    return dense_clips(n, t, window=window)
  return twice_clips(n, t) if sampling == 'twice' else uniform_eval(n, t)[None]


def uniform_train(n: int, t: int, rng: np.random.Generator) -> np.ndarray:
  """(t,): one frame drawn from each of t segments of n // t frames; the last n % t frames are never drawn.

  Deviation from TSM: it takes frame 0 t times where n < t, a still picture. Here these videos are spread over
  the clip, as MMAction2 does: np.around(arange(t) * n / t).
  """
  _check(n, t)
  length = n // t
  if length:
    return np.arange(t) * length + rng.integers(length, size=t)
  return np.minimum(np.around(np.arange(t) * n / t).astype(np.int64), n - 1)


def uniform_eval(n: int, t: int) -> np.ndarray:
  """(t,): the middle of each of t segments of n / t frames, which need not be a whole number of frames.

  Deviation from TSM: it does so at test time, but takes frame 0 t times to validate while training where
  n <= t. Here both are the same.
  """
  _check(n, t)
  length = n / t
  return (length / 2 + length * np.arange(t)).astype(np.int64)


def dense_train(n: int, t: int, rng: np.random.Generator, window: int = WINDOW) -> np.ndarray:
  """(t,): a window that begins anywhere in the video. A shorter video goes on at frame 0 where it ends.

  Deviation from TSM: its window never begins at n - window, the last place where it fits, so that a video of
  65 frames has one clip and its last frame may never be seen. Here every place is as likely as another.
  """
  _check(n, t)
  return _dense(int(rng.integers(max(n - window, 0), endpoint=True)), n, t, window)


def dense_eval(n: int, t: int, window: int = WINDOW) -> np.ndarray:
  """(t,): the window in the middle.

  Deviation from TSM: it validates on a window that it draws, so that the same network has another accuracy
  each time.
  """
  _check(n, t)
  return _dense(max(n - window, 0) // 2, n, t, window)


def dense_clips(n: int, t: int, clips: int = 10, window: int = WINDOW) -> np.ndarray:
  """(clips, t): windows from the first to the last place where they fit, equally far apart."""
  _check(n, t)
  starts = np.linspace(0, max(n - window, 0), clips).astype(np.int64)
  return _dense(starts[:, None], n, t, window)


def twice_clips(n: int, t: int) -> np.ndarray:
  """(2, t): the middles of the segments, and their beginnings."""
  _check(n, t)
  return np.stack([uniform_eval(n, t), (n / t * np.arange(t)).astype(np.int64)])


def _dense(start: int | np.ndarray, n: int, t: int, window: int) -> np.ndarray:
  return (start + np.arange(t) * max(window // t, 1)) % n


def _check_sampling(sampling: str) -> None:
  if sampling not in SAMPLINGS:
    raise ValueError(f'sampling is {sampling!r}: it must be one of {", ".join(SAMPLINGS)}')


def _check(n: int, t: int) -> None:
  if n < 1 or t < 1:
    raise ValueError(f'n={n}, t={t}: a clip takes 1 frame or more, of a video that has 1 or more')
