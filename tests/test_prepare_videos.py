"""`prepare videos`: a folder of videos, encoded again to be read quickly."""

import os

import av
import numpy as np
import pytest
from video_files import in_turn, packets, pictures, turn, write_sound, write_video

from ctx_flax.data import prepare, video, video_folders


def prepared(tmp_path, *options):
  prepare.main(['videos', str(tmp_path / 'small'), f'--from={tmp_path / "K400"}', '--processes=1', *options])
  return tmp_path / 'small'


@pytest.fixture
def folder(tmp_path):
  """K400 with three videos, of 40, 9 and 3 frames, and three files that cannot be read."""
  root = tmp_path / 'K400'
  for name in ('train/a b', 'validation/é'):
    (root / name).mkdir(parents=True)
  write_video(root / 'train' / 'a b' / '1.webm', pictures(40, 72, 50), 'libvpx')
  write_video(root / 'train' / 'a b' / '2.mp4', pictures(9, 32, 100))
  write_video(root / 'validation' / 'é' / '3.MKV', 3)
  write_video(root / 'validation' / 'é' / '3.ts', 2)
  (root / 'validation' / 'é' / 'bad.mp4').write_bytes(bytes(99))
  write_sound(root / 'sound.mp4')
  (root / 'train.txt').write_text('no video')
  return root


def files_of(root):
  return {path.relative_to(root).as_posix() for path in root.rglob('*') if path.is_file()}


WRITTEN = {'train/a b/1.mp4', 'train/a b/2.mp4', 'validation/é/3.mp4'}


def test_every_video_is_there_small_and_whole(tmp_path, folder, capsys):
  root = prepared(tmp_path, '--short_side=36')
  assert files_of(root) == {'settings.json', 'bad_videos.txt', *WRITTEN}
  for name, frames, size in (
    ('train/a b/1.mp4', 40, (52, 36)),
    ('train/a b/2.mp4', 9, (32, 100)),
    ('validation/é/3.mp4', 3, (32, 48)),
  ):
    assert [pixels.shape for pixels in in_turn(root / name)] == [(*size, 3)] * frames, name
  assert (root / 'bad_videos.txt').read_text(encoding='utf-8').splitlines() == [
    'sound.mp4: no video stream',
    'validation/é/3.ts: validation/é/3.MKV is written to validation/é/3.mp4',
    'validation/é/bad.mp4: Invalid data found when processing input',
  ]
  told = capsys.readouterr().out
  assert (
    'small: 3 videos, and 3 that cannot be read are listed in bad_videos.txt: --config.data.path=' in told
  )


def test_it_is_quick_to_read_a_frame(tmp_path, folder):
  path = prepared(tmp_path) / 'train/a b/1.mp4'
  keys = [i for i, packet in enumerate(packets(path)) if packet.is_keyframe]
  assert keys == [0, 16, 32]
  times = [packet.pts for packet in packets(path)]
  assert times == sorted(times)  # no B frames
  with av.open(str(path)) as container:
    assert len(container.streams) == 1 and container.streams.video[0].average_rate == 12


def test_pictures_stay_what_they_are_and_stand_upright(tmp_path):
  (tmp_path / 'K400').mkdir()
  source = turn(write_video(tmp_path / 'K400' / 'a.mp4'), 0, 1, -1, 0)
  (path,) = prepared(tmp_path, '--crf=10').glob('*.mp4')
  with video.open_clip({'video': str(source)}) as before, video.open_clip({'video': str(path)}) as after:
    assert before.count == after.count == 24
    for old, new in zip(before.read(range(24)), after.read(range(24)), strict=True):
      assert old.shape == new.shape == (48, 32, 3)
      assert np.abs(old.astype(int) - new).mean() < 6


def test_the_same_command_goes_on_and_writes_nothing_twice(tmp_path, folder, monkeypatch):
  encode = video_folders.encode
  done = []

  def killed(job):
    if len(done) == 2:
      raise KeyboardInterrupt
    done.append(job.source)
    return encode(job)

  monkeypatch.setattr(video_folders, 'encode', killed)
  with pytest.raises(SystemExit, match='the same command goes on'):
    prepared(tmp_path)
  monkeypatch.setattr(video_folders, 'encode', encode)
  begun = {path: path.stat().st_mtime_ns for path in (tmp_path / 'small').rglob('*.mp4')}
  assert len(begun) == 1  # and sound.mp4, which is bad
  root = prepared(tmp_path)
  assert files_of(root) >= WRITTEN
  assert all(path.stat().st_mtime_ns == time for path, time in begun.items())
  times = {path: path.stat().st_mtime_ns for path in root.rglob('*.mp4')}
  write_video(folder / 'sound.mp4', 2)  # has been repaired
  (folder / 'validation' / 'é' / 'bad.mp4').unlink()
  (folder / 'validation' / 'é' / '3.ts').unlink()
  prepared(tmp_path)
  assert all(path.stat().st_mtime_ns == time for path, time in times.items())
  assert files_of(root) == {'settings.json', 'sound.mp4', *WRITTEN}


def test_half_a_file_has_no_final_name(tmp_path, folder, monkeypatch):
  def ended(part, path):
    assert part.stat().st_size > 0
    raise KeyboardInterrupt

  (tmp_path / 'small').mkdir()
  job = video_folders.Job(str(folder / 'train/a b/2.mp4'), str(tmp_path / 'small' / '2.mp4'), 256, 23)
  monkeypatch.setattr(os, 'replace', ended)
  with pytest.raises(KeyboardInterrupt):
    video_folders.encode(job)
  assert not files_of(tmp_path / 'small')


def test_several_processes_do_the_same(tmp_path, folder):
  one = prepared(tmp_path)
  contents = {name: (one / name).read_bytes() for name in sorted(files_of(one))}
  one.rename(tmp_path / 'one')
  two = prepared(tmp_path, '--processes=2')
  assert {name: (two / name).read_bytes() for name in sorted(files_of(two))} == contents


def test_what_cannot_be_done_is_one_line(tmp_path, folder):
  for source, target, options, message in (
    ('none', 'small', (), r'none is not a folder; --from names it$'),
    ('K400', 'K400/small', (), r'small lies in the folder of --from: give another one$'),
    ('K400', 'K400', (), r'K400 lies in the folder of --from'),
    ('K400/none', 'small', ('--crf=52',), 'none is not a folder'),
    ('K400', 'small', ('--crf=52',), r'--crf must be 0 to 51, but is 52$'),
    ('K400', 'small', ('--processes=0',), r'--processes must be 1 to 1024, but is 0$'),
    ('empty', 'small', (), r'empty holds no video files \(\.mp4 '),
  ):
    (tmp_path / 'empty').mkdir(exist_ok=True)
    with pytest.raises(SystemExit, match=f'^error: .*{message}'):
      prepare.main(['videos', str(tmp_path / target), f'--from={tmp_path / source}', *options])
  assert not (tmp_path / 'small').exists()


@pytest.mark.parametrize(
  'size, short_side, expected',
  [
    ((1280, 720), 256, (456, 256)),
    ((720, 1280), 256, (256, 456)),
    ((340, 256), 256, (340, 256)),
    ((175, 99), 256, (174, 98)),
    ((175, 99), 0, (174, 98)),
    ((3, 1), 256, (2, 2)),
  ],
)
def test_sizes(size, short_side, expected):
  assert video_folders.small_size(*size, short_side) == expected
