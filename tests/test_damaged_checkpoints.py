"""Checkpoints whose files do not hold what was saved: recognised, set aside, and gone on before them."""

import errno
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from checkpoint_trees import assert_equal, trees
from networks import slow_unless
from run_files import contents, damage, half

from ctx_flax.training import checkpoint_files, damaged_checkpoints, distributed
from ctx_flax.training.checkpoint_files import DamagedCheckpoint
from ctx_flax.training.checkpoints import Checkpoints


def large(seed):
  """Trees with an array that gets a file of its own."""
  return trees(seed) | {'large': {'a': np.random.default_rng(seed).random((300, 300), np.float32)}}


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A folder of the steps 3 and 7, saved with values."""
  folder = tmp_path_factory.mktemp('saved')
  with Checkpoints(folder, keep=2, metric='accuracy') as checkpoints:
    checkpoints.save(3, large(3), 0.25)
    checkpoints.save(7, large(7), 0.5)
  return folder


@pytest.fixture
def copy(saved, tmp_path):
  return shutil.copytree(saved, tmp_path / 'checkpoints')


def hole(data):
  third = len(data) // 3
  return data[:third] + bytes(third) + data[2 * third :]


KINDS = {'half': half, 'empty': lambda _: b'', 'zeros': lambda data: bytes(len(data)), 'hole': hole}


@pytest.mark.parametrize('kind', slow_unless([*KINDS, 'missing'], 'half', 'missing'))
def test_damage_of_any_file_is_recognised_or_does_not_matter(copy, kind, capfd):
  """And in one line: nothing of what the libraries' threads print gets out."""
  folder, recognised = copy / '7', set()
  files = sorted(path for path in folder.rglob('*') if path.is_file())
  for path in files:
    data = path.read_bytes()
    if kind == 'missing':
      path.unlink()
    else:
      path.write_bytes(KINDS[kind](data))
    try:
      assert_equal(checkpoint_files.restore(folder, large(0)), large(7))
    except DamagedCheckpoint as error:
      assert str(folder) in str(error) and '\n' not in str(error) and len(error.reason) < 200
      recognised.add(path.relative_to(folder).parts[-1])
    path.write_bytes(data)
  assert_equal(checkpoint_files.restore(folder, large(0)), large(7))
  assert {'_CHECKPOINT_METADATA', '_METADATA', 'manifest.ocdbt', 'metrics'} <= recognised
  biggest = max(files, key=lambda path: path.stat().st_size)
  assert biggest.stat().st_size > 300_000 and biggest.name in recognised
  assert capfd.readouterr().err == ''


def test_an_array_that_is_not_what_was_saved_is_damage(copy):
  """What a file system makes of lost blocks may still be a checkpoint, of zeros say."""
  path = copy / '7' / '_CHECKPOINT_METADATA'
  about = json.loads(path.read_text())
  about['custom_metadata']['crc32']['large/a'] ^= 1
  path.write_text(json.dumps(about))
  with pytest.raises(DamagedCheckpoint, match='large/a is not what was saved'):
    checkpoint_files.restore(copy / '7', large(0))
  with pytest.raises(DamagedCheckpoint, match='large/a is not what was saved'):
    checkpoint_files.read(copy / '7', 'large')
  variables = {'variables': large(0)['variables']}  # a reader of these is not concerned
  assert_equal(checkpoint_files.restore(copy / '7', variables), {'variables': large(7)['variables']})


def test_checkpoints_without_checksums_are_restored(tmp_path):
  """Those of versions before: what is not finite is damage there, and values belong to the accuracy."""
  with Checkpoints(tmp_path, keep=2, metric='accuracy') as checkpoints:
    checkpoints.save(3, trees(3), 0.5)
    checkpoints.save(7, {'t': {'a': np.array([1, np.nan], np.float32)}})
  for path in tmp_path.glob('*/_CHECKPOINT_METADATA'):
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {'custom_metadata': {}}))
  with Checkpoints(tmp_path, metric='accuracy') as checkpoints:
    assert_equal(checkpoints.restore(3, trees(0)), trees(3))
    with pytest.raises(DamagedCheckpoint, match='t/a is not finite'):
      checkpoints.read(7, 't')
    assert checkpoints.best() == (3, 0.5)
  with Checkpoints(tmp_path, metric='mask_ap') as checkpoints:
    assert checkpoints.best() is None and checkpoints.best_value() == -np.inf


def test_the_newest_that_is_whole_is_restored_and_damaged_ones_are_set_aside(copy):
  """As often as it happens; nothing is deleted, and the step can be saved again."""
  for name in ('damaged-7', 'damaged-7-2'):
    damage(copy / '7')
    files = {path.relative_to(copy / '7'): data for path, data in contents(copy / '7').items()}
    told = []
    with Checkpoints(copy, keep=2, keep_best=True, metric='accuracy') as checkpoints:
      start, restored = damaged_checkpoints.restore_newest(checkpoints, large(0), told.append)
      assert start == 3 and checkpoints.steps() == [3] and checkpoints.best() == (3, 0.25)
      assert_equal(restored, large(3))
      (line,) = told
      assert line.startswith('checkpoint 7 is damaged (variables/') and f'renamed to {copy / name};' in line
      assert line.endswith('going on from step 3') and '\n' not in line
      assert {path.relative_to(copy / name): data for path, data in contents(copy / name).items()} == files
      checkpoints.save(7, large(7), 0.5)
      checkpoints.wait()
      assert checkpoints.steps() == [3, 7] and checkpoints.best() == (7, 0.5)
  with Checkpoints(copy, keep=2, keep_best=True, metric='accuracy') as checkpoints:
    checkpoints.save(8, large(8), 0.1)
    checkpoints.save(9, large(9), 0.1)
  assert {path.name for path in copy.iterdir()} == {'7', '8', '9', 'damaged-7', 'damaged-7-2'}


def test_a_damaged_best_is_set_aside_though_the_run_goes_on_behind_it(copy):
  with Checkpoints(copy, keep=3, metric='accuracy') as checkpoints:
    checkpoints.save(9, large(9), 0.125)
  damage(copy / '7')
  told = []
  with Checkpoints(copy, keep=3, keep_best=True, metric='accuracy') as checkpoints:
    assert checkpoints.best() == (7, 0.5)
    start, restored = damaged_checkpoints.restore_newest(checkpoints, large(0), told.append)
    assert start == 9 and checkpoints.steps() == [3, 9] and checkpoints.best() == (3, 0.25)
    assert_equal(restored, large(9))
  assert len(told) == 1 and told[0].startswith('checkpoint 7 is damaged (')


def test_if_none_can_be_restored_nothing_is_changed(copy):
  for step in ('3', '7'):
    damage(copy / step)
  before = contents(copy)
  with Checkpoints(copy, metric='accuracy') as checkpoints:
    with pytest.raises(
      ValueError, match=r'no checkpoint in .* can be restored \(7: .*; 3: .*\): take another'
    ):
      damaged_checkpoints.restore_newest(checkpoints, large(0))
    assert checkpoints.steps() == [3, 7]
  assert contents(copy) == before


def test_an_incomplete_copy_is_no_start_from_nothing(copy):
  shutil.rmtree(copy / '3')
  (copy / '7' / '_CHECKPOINT_METADATA').unlink()
  with (
    Checkpoints(copy, metric='accuracy') as checkpoints,
    pytest.raises(ValueError, match='7: it is not complete'),
  ):
    damaged_checkpoints.restore_newest(checkpoints, large(0))


def test_no_checkpoint_is_a_start_from_nothing(tmp_path):
  with Checkpoints(tmp_path / 'new', metric='accuracy') as checkpoints:
    assert damaged_checkpoints.restore_newest(checkpoints, large(0)) == (0, None)


def test_an_older_one_whose_value_is_lost_does_not_keep_orbax_from_saving(copy):
  (copy / '3' / 'metrics' / 'metrics').write_bytes(b'\0\0\0')
  told = []
  with Checkpoints(copy, keep=5, metric='accuracy') as checkpoints:
    assert damaged_checkpoints.restore_newest(checkpoints, large(0), told.append)[0] == 7
    checkpoints.save(8, large(8))
  assert {path.name for path in copy.iterdir()} == {'7', '8', 'damaged-3'}
  assert len(told) == 1 and 'checkpoint 3 is damaged (metrics/metrics is cut short' in told[0]


def test_what_does_not_fit_is_not_damage(copy):
  before = contents(copy)
  with (
    Checkpoints(copy, metric='accuracy') as checkpoints,
    pytest.raises(ValueError, match='does not fit') as refused,
  ):
    damaged_checkpoints.restore_newest(checkpoints, {'variables': trees(0, width=5)['variables']})
  assert not isinstance(refused.value, DamagedCheckpoint) and contents(copy) == before


@pytest.mark.parametrize('name', ['large/_METADATA', '_CHECKPOINT_METADATA', 'large/manifest.ocdbt'])
def test_a_disk_that_cannot_be_read_is_not_damage(copy, monkeypatch, name):
  """The error names the path, and nothing is set aside. (A user without rights: root has them all.)"""
  damage(copy / '7')
  before = contents(copy)
  original = pathlib.Path.open

  def fail(self, *args, **keywords):
    if self == copy / '7' / name:
      raise OSError(errno.EIO, 'Input/output error', str(self))
    return original(self, *args, **keywords)

  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, 'open', fail)
    with (
      Checkpoints(copy, metric='accuracy') as checkpoints,
      pytest.raises(OSError, match=f'Input/output error.*{name}'),
    ):
      damaged_checkpoints.restore_newest(checkpoints, large(0))
  assert contents(copy) == before


def test_a_folder_that_vanished_is_not_damage(copy):
  with Checkpoints(copy, metric='accuracy') as checkpoints:
    shutil.rmtree(copy)
    with pytest.raises(FileNotFoundError, match=str(copy)):
      damaged_checkpoints.restore_newest(checkpoints, large(0))
    with pytest.raises(FileNotFoundError, match=f'{copy}/7'):
      checkpoints.restore(7, large(0))


def test_one_that_another_process_cannot_restore_is_damaged(copy, monkeypatch):
  """All processes go on from the same step; the first one renames."""
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  answers = iter([[1.0], [0.0], [0.0]])  # of all processes: step 7 is damaged, step 3 is not, and go on
  monkeypatch.setattr(distributed, 'total', lambda _: next(answers))
  before = contents(copy)
  with Checkpoints(copy, metric='accuracy') as checkpoints:
    start, restored = damaged_checkpoints.restore_newest(checkpoints, large(0))
    assert start == 3 and checkpoints.steps() == [3] and checkpoints.best() == (3, 0.25)
    assert_equal(restored, large(3))
  assert contents(copy) == before


def test_reading_names_the_newest_that_is_whole(copy):
  read = lambda step: checkpoint_files.restore(copy / str(step), large(0))
  with Checkpoints(copy, read_only=True, metric='accuracy') as checkpoints:
    assert damaged_checkpoints.chosen(checkpoints, 'best', read)[0] == 7
    damage(copy / '7')
    before = contents(copy)
    for which in ('latest', 'best', '7'):
      with pytest.raises(
        DamagedCheckpoint, match=r'/7 is damaged: .*the newest that is whole is 3: --config.eval.checkpoint=3'
      ):
        damaged_checkpoints.chosen(checkpoints, which, read)
    assert damaged_checkpoints.chosen(checkpoints, '3', read)[0] == 3
    (copy / '7' / 'metrics' / 'metrics').write_text('[]')
    with pytest.raises(DamagedCheckpoint, match=r'/7 is damaged: metrics/metrics is overwritten; .* is 3'):
      damaged_checkpoints.chosen(checkpoints, 'best', read)
    damage(copy / '3')
    with pytest.raises(DamagedCheckpoint, match='no other one can be restored either'):
      damaged_checkpoints.chosen(checkpoints, 'latest', read)
  assert contents(copy).keys() == before.keys()
