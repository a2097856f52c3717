"""A video as a folder of image files, for which PyAV is not needed."""

import sys

import numpy as np
import pytest
from encoded_images import encoded
from PIL import Image

from ctx_flax.data import video
from ctx_flax.data.decode import BadImage


def noise(n):
  """uint8 (n, 32, 48, 3)."""
  return np.random.default_rng(0).integers(0, 256, (n, 32, 48, 3), dtype=np.uint8)


@pytest.fixture
def without_av(monkeypatch):
  monkeypatch.setitem(sys.modules, 'av', None)
  monkeypatch.delitem(sys.modules, 'ctx_flax.data.video_file', raising=False)


def test_missing_pyav_is_told(tmp_path, without_av):
  message = r'^reading video files needs PyAV, which is not installed: pip install "ctx-flax\[video\]"$'
  with pytest.raises(ImportError, match=message), video.open_clip({'video': str(tmp_path)}):
    pass


def test_a_folder_of_frames_needs_no_pyav(tmp_path, without_av):
  frames = noise(5)
  names = tuple(f'img_{i + 1:05d}.png' for i in range(5))
  for name, pixels in zip(names, frames, strict=True):
    Image.fromarray(pixels).save(tmp_path / name)
  Image.fromarray(frames[3, ..., 0]).save(tmp_path / names[3])  # gray
  with video.open_clip({'frames': (str(tmp_path), names), 'label': 0}) as clip:
    assert clip.count == 5
    first, again, gray = clip.read([4, 4, 3])
    np.testing.assert_array_equal([first, again], frames[[4, 4]])
    np.testing.assert_array_equal(gray, np.repeat(frames[3, ..., :1], 3, axis=2))
    with pytest.raises(IndexError, match=r'^frame 5 of a video of 5$'):
      clip.read([5])


def test_damaged_frames_of_a_folder_are_named(tmp_path):
  data = encoded(Image.fromarray(noise(1)[0]), 'JPEG')['encoded']
  (tmp_path / 'good.jpg').write_bytes(data)
  (tmp_path / 'cut.jpg').write_bytes(data[: len(data) // 2])
  with video.open_clip({'frames': (tmp_path, ('good.jpg', 'cut.jpg', 'none.jpg'))}) as clip:
    assert clip.read([0])[0].shape == (32, 48, 3)
    with pytest.raises(BadImage, match=r'^cut.jpg: .'):
      clip.read([0, 1])
    with pytest.raises(FileNotFoundError):
      clip.read([2])
  with pytest.raises(BadImage, match=r'^no frames$'), video.open_clip({'frames': (tmp_path, ())}):
    pass
