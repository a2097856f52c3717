"""Frames of video files by number: exactly those that decoding everything in turn gives."""

import os
import pathlib

import numpy as np
import pytest
from video_files import (
  B_FRAMES,
  copy_packets,
  cut_start,
  damage,
  in_turn,
  packets,
  turn,
  write_sound,
  write_video,
)

from ctx_flax.data import video
from ctx_flax.data.decode import BadImage


def read(path, indices):
  with video.open_clip({'video': str(path)}) as clip:
    return clip.read(indices)


def assert_equal_to(path, frames):
  """All frames, single ones in any order, and some of them at once are those of the list."""
  rng = np.random.default_rng(0)
  with video.open_clip({'video': str(path)}) as clip:
    assert clip.count == len(frames) > 0
    choices = [
      range(len(frames)),
      *rng.integers(0, len(frames), (6, 1)),
      *rng.integers(0, len(frames), (4, 5)),
    ]
    for indices in choices:
      for index, pixels in zip(indices, clip.read(indices), strict=True):
        assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, frames[index], f'frame {index} of {indices}', strict=True)


UNEVEN = (np.cumsum(np.random.default_rng(1).integers(15, 200, 24)) + 500).tolist()
KINDS = {
  'b_frames.mp4': {},
  'uneven.mp4': {'times': UNEVEN},
  'uneven.mkv': {'times': UNEVEN},
  'one.mp4': {'frames': 1},
  'two.webm': {'frames': 2, 'codec': 'libvpx-vp9'},
  'vp8.webm': {'codec': 'libvpx', 'options': {'g': '8', 'auto-alt-ref': '1', 'lag-in-frames': '12'}},
  'vp9.webm': {'codec': 'libvpx-vp9', 'options': {'g': '8', 'cpu-used': '8'}},
  'b_frames.mkv': {},
  'b_frames.ts': {},
  'mpeg4.avi': {'codec': 'mpeg4'},
  'h264.avi': {},  # packets have no times of frames
  'mpeg2.mpg': {'codec': 'mpeg2video'},
  'raw.h264': {'kind': 'h264'},  # no times at all
}


@pytest.mark.parametrize('name', KINDS)
def test_frames_are_those_of_decoding_in_turn(tmp_path, name):
  path = write_video(tmp_path / name, **KINDS[name])
  frames = in_turn(path)
  assert len(frames) == KINDS[name].get('frames', 24)
  assert_equal_to(path, frames)


def test_numbers_count_from_the_first_frame(tmp_path):
  """What was drawn, and not only what another reader gives."""
  path = write_video(tmp_path / 'a.mp4')
  for i, pixels in zip((0, 7, 8, 14), read(path, (0, 7, 8, 14)), strict=True):
    bar = np.flatnonzero(pixels[20].min(axis=1) > 200)
    assert abs(np.median(bar) - (3 * i + 2)) < 1


def test_bytes_are_a_file_too(tmp_path):
  path = write_video(tmp_path / 'a.mp4')
  with video.open_clip({'video': path.read_bytes(), 'label': 3}) as clip:
    np.testing.assert_array_equal(clip.read([11, 3]), [in_turn(path)[i] for i in (11, 3)])


def test_indices_may_repeat_and_go_back(tmp_path):
  path = write_video(tmp_path / 'a.ts')
  frames = in_turn(path)
  np.testing.assert_array_equal(read(path, [20, 3, 20, 3, 0]), [frames[i] for i in (20, 3, 20, 3, 0)])
  for index in (-1, 24):
    with pytest.raises(IndexError, match=f'^frame {index} of a video of 24$'):
      read(path, [0, index])


def test_times_that_several_frames_share_tell_nothing(tmp_path):
  path = write_video(tmp_path / 'whole.mkv', codec='mpeg4', options={'g': '8'})
  copy_packets(path, tmp_path / 'a.mkv', times=lambda i: 100 * (i | 1))
  assert len({packet.pts for packet in packets(tmp_path / 'a.mkv')}) == 12
  assert_equal_to(tmp_path / 'a.mkv', in_turn(path))


@pytest.mark.parametrize('name', ['a.mkv', 'a.ts'])
def test_a_stream_cut_between_keyframes_begins_with_the_first_that_can_be_decoded(tmp_path, name):
  path = copy_packets(write_video(tmp_path / f'whole_{name}'), tmp_path / name, first=3)
  frames = in_turn(path)
  assert len(packets(path)) == 21 and 15 <= len(frames) <= 17
  assert_equal_to(path, frames)


def test_frames_that_an_edit_list_leaves_out_are_not_counted(tmp_path):
  path = write_video(tmp_path / 'a.mp4')
  whole = in_turn(path)
  cut_start(path, 5 * 1024)  # five frames of 12 a second in units of 1 / 12288 s
  frames = in_turn(path)
  assert len(frames) == 19
  np.testing.assert_array_equal(frames[0], whole[5])
  assert_equal_to(path, frames)


@pytest.mark.parametrize(
  'matrix, turned',
  [
    ((0, 1, -1, 0), lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1]),  # a quarter clockwise
    ((-1, 0, 0, -1), lambda pixels: pixels[::-1, ::-1]),
    ((0, -1, 1, 0), lambda pixels: pixels.transpose(1, 0, 2)[::-1]),
  ],
)
def test_frames_are_turned_upright(tmp_path, matrix, turned):
  path = turn(write_video(tmp_path / 'a.mp4'), *matrix)
  assert_equal_to(path, [turned(pixels) for pixels in in_turn(path)])


@pytest.mark.parametrize('name', ['a b.mp4', 'Жук “é”.mp4', 'C:a%03d.mp4', os.fsdecode(b'\xe9.mp4')])
def test_any_name_will_do(tmp_path, monkeypatch, name):
  path = write_video(tmp_path / 'a.mp4')
  path.rename(tmp_path / name)
  monkeypatch.chdir(tmp_path)
  assert len(read(name, [5])) == len(read(tmp_path / name, [5])) == 1


def test_damage_in_the_middle_spoils_its_own_frames_alone(tmp_path):
  path = write_video(tmp_path / 'a.mp4')
  frames = in_turn(path)
  damage(path, [9, 10])  # in the second of three groups of eight
  with video.open_clip({'video': str(path)}) as clip:
    assert clip.count == 24
    for indices in (range(24), range(23, -1, -1)):
      for i in indices:
        (pixels,) = clip.read([i])
        assert (pixels == frames[i]).all() or 8 <= i < 16, i


@pytest.mark.parametrize('name, codec', [('a.mp4', 'libx264'), ('a.mkv', 'libvpx')])
def test_a_video_that_ends_with_damage_ends_with_its_last_frame(tmp_path, name, codec):
  """More frames are counted than can be decoded; in the first file nothing can from the last keyframe on."""
  path = write_video(tmp_path / name, codec=codec, options=B_FRAMES if codec == 'libx264' else {'g': '8'})
  assert packets(path)[16].is_keyframe
  frames = in_turn(path)
  damage(path, range(16, 24))
  for indices in ([23], [15, 23], range(24), [20, 21, 3]):
    for i, pixels in zip(indices, read(path, indices), strict=True):
      np.testing.assert_array_equal(pixels, frames[min(i, 15)], f'frame {i} of {indices}')


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.ts'])
def test_a_truncated_file_has_the_frames_that_are_left(tmp_path, name):
  path = write_video(tmp_path / name, container={'movflags': 'faststart'} if name == 'a.mp4' else None)
  frames, data = in_turn(path), path.read_bytes()
  path.write_bytes(data[: len(data) * 3 // 4])
  with video.open_clip({'video': str(path)}) as clip:
    assert 10 < clip.count < 24
    for i, pixels in enumerate(clip.read(range(8))):
      np.testing.assert_array_equal(pixels, frames[i])
    assert len(clip.read([clip.count - 1])) == 1


def test_what_is_no_video_says_why_in_a_few_words(tmp_path):
  mp4 = write_video(tmp_path / 'a.mp4').read_bytes()
  files = {
    'truncated.mp4': mp4[: len(mp4) * 2 // 3],  # the table of frames is at the end
    'empty.mp4': b'',
    'zeros.mkv': bytes(1000),
    'text.mp4': b'not a video\n' * 50,
    'text.txt': b'not a video\n' * 50,
  }
  for name, data in files.items():
    (tmp_path / name).write_bytes(data)
  write_sound(tmp_path / 'sound.mp4')
  for name in (*files, 'sound.mp4'):
    with pytest.raises(BadImage, match=r'^[\w ]{9,50}$'), video.open_clip({'video': str(tmp_path / name)}):
      pass
  damage(tmp_path / 'a.mp4', range(24))
  with pytest.raises(BadImage, match=r'^no frame can be decoded$'):
    read(tmp_path / 'a.mp4', [3])


def test_a_file_that_cannot_be_opened_is_an_error_of_the_system(tmp_path):
  for path, kind in ((tmp_path / 'none.mp4', FileNotFoundError), (tmp_path, IsADirectoryError)):
    with pytest.raises(kind) as raised:
      read(path, [0])
    assert raised.value.filename == str(path) and type(raised.value) is kind


def test_an_error_of_the_caller_is_not_taken_for_damage(tmp_path):
  path = write_video(tmp_path / 'a.mp4', 1)
  with pytest.raises(TypeError), video.open_clip({'video': str(path)}):
    raise TypeError('a bug')


@pytest.mark.skipif(not pathlib.Path('/proc/self/fd').is_dir(), reason='counts open files in /proc')
def test_no_file_stays_open(tmp_path):
  good = write_video(tmp_path / 'a.ts')
  raw = write_video(tmp_path / 'a.h264', kind='h264')
  sound = write_sound(tmp_path / 'a.mp4')
  before = len(os.listdir('/proc/self/fd'))
  for _ in range(17):
    read(good, [20, 4])
    read(raw, [20])
    with pytest.raises(BadImage):
      read(sound, [0])
  assert len(os.listdir('/proc/self/fd')) == before
