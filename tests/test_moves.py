"""The videos that are made here: what they show, opposites that mirror one another, and their folder."""

import json
import sys
import types

import av
import numpy as np
import pytest

from ctx_flax.data import moves, moves_render
from ctx_flax.data.moves_render import FRAMES, MOTIONS, SCENES, SIDE

AXES = range(len(MOTIONS) // 2)


def settings(path, **changes):
  values = {'name': 'moves', 'path': str(path), 'classes': 40, 'images_per_class': 1, 'split_seed': 0}
  return types.SimpleNamespace(**values | changes)


def decoded(content):
  with av.open(content) as container:
    return np.stack([frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)])


@pytest.fixture
def encoded(monkeypatch):
  """Files that say what was drawn for them, without OpenCV and PyAV; the list of their frames."""
  made = []
  monkeypatch.setattr(moves_render, 'render', lambda scene, axis, rng, split: rng.random(2))
  monkeypatch.setattr(
    moves_render, 'encode', lambda frames: made.append(frames) or str(frames.sum()).encode()
  )
  return made


# What they show.


@pytest.fixture(scope='module')
def films():
  """A video of each axis over one photograph."""
  return [moves_render.render('cat', axis, np.random.default_rng(3), 'train') for axis in AXES]


def warped(axis, amount):
  """Maps pixel positions of a first frame to those of a later one, by the motion's name: (x, y) -> (x, y)."""
  middle = (SIDE - 1) / 2

  def move(x, y):
    if axis == 0:  # left
      return x - amount, y
    if axis == 1:  # up
      return x, y - amount
    if axis == 2:  # in: away from the middle
      return middle + (x - middle) * (1 + amount / 50), middle + (y - middle) * (1 + amount / 50)
    angle = amount / 25  # clockwise, as y points down
    dx, dy = x - middle, y - middle
    return middle + dx * np.cos(angle) - dy * np.sin(angle), middle + dx * np.sin(angle) + dy * np.cos(angle)

  return move


@pytest.mark.parametrize('axis', AXES)
def test_motions_go_where_their_names_say(films, axis):
  """A frame moved in the named direction is more like the next frames than one moved in the other."""
  first, later = (films[axis][k].astype(np.float64) for k in (9, 13))
  y, x = np.meshgrid(np.arange(12, 52), np.arange(12, 52), indexing='ij')

  def difference(amount):
    moved_x, moved_y = (np.rint(position).astype(int) for position in warped(axis, amount)(x, y))
    return np.abs(later[moved_y, moved_x] - first[y, x]).mean()

  assert difference(6.0) < 0.8 * difference(0.0) < 0.8 * difference(-6.0)


def roughness(film):
  """By how much the values differ that two pairs of rows say for the row of CONTENT between them."""
  pairs = film[:, 1:-1].astype(np.float64).reshape(FRAMES, SIDE // 2 - 1, 2, SIDE, 3)
  before = 1.5 * pairs[:, :-1, 1] - 0.5 * pairs[:, :-1, 0]
  after = 1.5 * pairs[:, 1:, 0] - 0.5 * pairs[:, 1:, 1]
  return np.abs(before - after).mean()


def test_frames_hold_no_more_detail_than_is_said(films, monkeypatch):
  film = films[0]
  assert film.shape == (FRAMES, SIDE, SIDE, 3) and film.dtype == np.uint8
  assert SIDE == 2 * moves_render.CONTENT and roughness(film) < 1
  monkeypatch.setattr(moves_render, 'CONTENT', SIDE)
  assert roughness(moves_render.render('cat', 0, np.random.default_rng(3), 'train')) > 2


def test_training_and_test_places_differ():
  """They are the two colours of a chessboard, and never a plain sky, which nobody sees move."""
  image = moves_render._scene('temple')
  half = int(moves_render.WINDOW / 2)
  for split in ('train', 'test'):
    rng = np.random.default_rng(0)
    centres = [moves_render._centre(rng, image, split) for _ in range(50)]
    cells = [(y // moves_render.CELL + x // moves_render.CELL) % 2 for y, x in centres]
    assert set(cells) == {split == 'test'}
    for y, x in np.asarray(centres, int):
      assert image[y - half : y + half, x - half : x + half].mean(-1).std() >= moves_render.CONTRAST


def test_the_frames_of_test_sampling_are_the_same_read_backwards():
  """The middles of eight equal parts, so that a network without time sees the same of both opposites."""
  middles = [int(FRAMES / 16 + FRAMES / 8 * i) for i in range(8)]
  assert sorted(FRAMES - 1 - k for k in middles) == middles


def test_a_video_backwards_is_its_opposite_bit_for_bit(tmp_path):
  """After decoding; and neither is the same backwards."""
  source = moves.moves(settings(tmp_path), 'test')
  by_name = {source.class_names[source[i]['label']]: source[i]['video'] for i in range(len(source))}
  for axis in AXES:
    one, other = (decoded(by_name[f'{SCENES[axis]} {motion}']) for motion in MOTIONS[2 * axis : 2 * axis + 2])
    assert one.shape == (FRAMES, SIDE, SIDE, 3)
    np.testing.assert_array_equal(one, other[::-1])
    assert np.abs(one.astype(int) - one[::-1]).mean() > 2
  film = moves_render.render(SCENES[0], 0, np.random.default_rng((0, True, 0, 0, 0)), 'test')
  assert np.abs(decoded(by_name['astronaut left']).astype(int) - film).mean() < 4


# The classes and the folder.


@pytest.mark.parametrize('videos, test', [(1, 1), (4, 1), (5, 2)])
def test_classes_are_photographs_and_motions_or_motions_alone(tmp_path, encoded, videos, test):
  data = settings(tmp_path, images_per_class=videos)
  for split, count in (('train', videos), ('test', test)):
    source = moves.moves(data, split)
    assert len(source) == 40 * count and source.class_names[:3] == (
      'astronaut left',
      'astronaut right',
      'astronaut up',
    )
    labels = [source[i]['label'] for i in range(len(source))]
    assert np.bincount(labels).tolist() == [count] * 40
    alone = moves.moves(settings(tmp_path, images_per_class=videos, classes=8), split)
    assert alone.class_names == MOTIONS and [alone.name(i) for i in range(len(alone))] == [
      source.name(i) for i in range(len(source))
    ]
    assert [alone[i]['label'] for i in range(len(alone))] == [label % 8 for label in labels]
    for i, label in enumerate(labels):
      assert source.name(i).split('/')[1].replace('_', ' ') == source.class_names[label]
  assert len(encoded) == 40 * (videos + test)  # once


def test_videos_follow_from_the_seed(tmp_path, encoded):
  contents = []
  for folder, seed in (('a', 0), ('b', 0), ('c', 1)):
    source = moves.moves(settings(tmp_path / folder, split_seed=seed), 'train')
    contents.append([(tmp_path / folder / source.name(i)).read_bytes() for i in range(len(source))])
  assert contents[0] == contents[1] and len(set(contents[0])) == 20  # as opposites have the same sum
  assert not set(contents[0]) & set(contents[2])


def test_an_ended_run_is_gone_on_with(tmp_path, monkeypatch):
  written = []

  def end_early(frames):
    if len(written) == 7:
      raise KeyboardInterrupt
    written.append(1)
    return b'old'

  monkeypatch.setattr(moves_render, 'encode', end_early)
  monkeypatch.setattr(moves.os, 'cpu_count', lambda: 1)
  with pytest.raises(KeyboardInterrupt):
    moves.moves(settings(tmp_path), 'train')
  assert not (tmp_path / 'complete').exists()
  monkeypatch.setattr(moves_render, 'encode', lambda frames: b'new')
  source = moves.moves(settings(tmp_path), 'train')
  files = [file.read_bytes() for file in tmp_path.glob('*/*/*.mp4')]
  assert sorted(files) == [b'new'] * 73 + [b'old'] * 7 and len(source) == 40
  assert (tmp_path / 'complete').exists() and not list(tmp_path.rglob('*.part'))


@pytest.mark.parametrize('moment', ['settings.json', '0000.mp4'])
def test_two_runs_at_once_make_the_same_folder(tmp_path, encoded, monkeypatch, moment):
  """The second one starts and ends while the first is about to give a file its name."""
  inner = []
  replace = moves.os.replace

  def replace_later(part, path):
    if path.name == moment and not inner:
      inner.append(None)
      inner[0] = moves.moves(settings(tmp_path), 'train')
    replace(part, path)

  monkeypatch.setattr(moves.os, 'replace', replace_later)
  monkeypatch.setattr(moves.os, 'cpu_count', lambda: 1)
  source = moves.moves(settings(tmp_path), 'train')
  assert len(source) == len(inner[0]) == 40
  assert all(file.read_bytes() for file in tmp_path.glob('*/*/*.mp4'))
  assert (tmp_path / 'complete').exists() and not list(tmp_path.rglob('*.part'))


def test_without_a_path_the_folder_is_in_the_cache_by_its_settings(tmp_path, encoded, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  roots = {
    moves.moves(settings('', **changes), 'train').root
    for changes in ({}, {'classes': 8}, {'split_seed': 1}, {'images_per_class': 2})
  }
  monkeypatch.setattr(moves_render, 'QP', 30)
  roots.add(moves.moves(settings(''), 'train').root)
  assert len(roots) == 4 and all(root.startswith(f'{tmp_path}/.cache/ctx_flax/moves-') for root in roots)


def test_a_whole_folder_needs_no_pyav(tmp_path, encoded, monkeypatch):
  moves.moves(settings(tmp_path / 'a'), 'train')
  monkeypatch.undo()
  monkeypatch.setitem(sys.modules, 'av', None)
  assert len(moves.moves(settings(tmp_path / 'a'), 'train')) == 40
  with pytest.raises(
    ImportError, match=r'needs PyAV, which is not installed: pip install "ctx-flax\[video\]"$'
  ):
    moves.moves(settings(tmp_path / 'b'), 'train')


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'classes': 10}, r'data\.classes is 10: moves has 40 \(photographs and motions\) or 8 \(motions\)'),
    ({'images_per_class': 0}, r'data\.images_per_class must be 1 or more, but is 0'),
  ],
)
def test_wrong_settings_are_told(tmp_path, changes, message):
  with pytest.raises(ValueError, match=message):
    moves.moves(settings(tmp_path, **changes), 'train')


def test_folders_of_something_else_are_left_alone(tmp_path, encoded):
  """Files of others, a file, or videos of other settings."""
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine/holiday.mp4').write_bytes(b'')
  with pytest.raises(
    ValueError, match=r'data\.path: .*mine holds other files: give a new or an empty folder'
  ):
    moves.moves(settings(tmp_path / 'mine'), 'train')
  with pytest.raises(ValueError, match='is not a folder'):
    moves.moves(settings(tmp_path / 'mine/holiday.mp4'), 'train')
  moves.moves(settings(tmp_path / 'made'), 'train')
  with pytest.raises(
    ValueError, match=r'data\.path: .*made holds a set of other settings .*: give another folder'
  ):
    moves.moves(settings(tmp_path / 'made', split_seed=1), 'train')
  assert json.loads((tmp_path / 'made/settings.json').read_text())['seed'] == 0
