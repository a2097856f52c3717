"""Checkpoints: what is saved comes back, the newest few stay, and what does not fit is refused."""

import pathlib
import resource
import shutil

import jax
import numpy as np
import pytest
from checkpoint_trees import assert_equal, trees

from ctx_flax.training.checkpoints import Checkpoints, SaveError


@pytest.mark.parametrize('relative', [False, True])
def test_saved_is_restored(tmp_path, monkeypatch, relative):
  monkeypatch.chdir(tmp_path)
  folder = pathlib.Path('c') if relative else tmp_path / 'c'
  with Checkpoints(folder, metric='accuracy') as checkpoints:
    assert checkpoints.latest() is None
    checkpoints.save(7, trees(7))
  with Checkpoints(folder, read_only=True, metric='accuracy') as checkpoints:
    assert checkpoints.latest() == 7
    assert_equal(checkpoints.restore(7, trees(0)), trees(7))
    # One tree alone, without knowing the other.
    variables = {'variables': trees(0)['variables']}
    assert_equal(checkpoints.restore(7, variables), {'variables': trees(7)['variables']})


def test_arrays_may_change_right_after_save(tmp_path):
  array = np.arange(1 << 20, dtype=np.float32)
  with Checkpoints(tmp_path, metric='accuracy') as checkpoints:
    checkpoints.save(1, {'t': {'array': array}})
    array[:] = -1
    checkpoints.wait()
    restored = checkpoints.restore(1, {'t': {'array': array}})['t']['array']
  np.testing.assert_array_equal(restored, np.arange(1 << 20, dtype=np.float32))


def test_the_newest_few_are_kept(tmp_path):
  with Checkpoints(tmp_path, keep=2, metric='accuracy') as checkpoints:
    for step in (1, 2, 10):
      checkpoints.save(step, trees(step))
  assert {path.name for path in tmp_path.iterdir()} == {'2', '10'}
  with Checkpoints(tmp_path, keep=2, metric='accuracy') as checkpoints:
    assert checkpoints.latest() == 10


def test_the_best_is_kept_beside_the_newest(tmp_path):
  with Checkpoints(tmp_path, keep=1, keep_best=True, metric='accuracy') as checkpoints:
    assert checkpoints.best_value() == -np.inf
    for step, accuracy in ((1, 0.5), (2, 0.9), (3, None), (4, 0.7)):
      checkpoints.save(step, trees(step), accuracy)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 4]
  with Checkpoints(tmp_path, keep=1, keep_best=True, metric='accuracy') as checkpoints:
    assert checkpoints.best() == (2, 0.9) and checkpoints.best_value() == 0.9
    assert [checkpoints.find(which) for which in ('best', 'latest', 2, '4')] == [2, 4, 2, 4]
    with pytest.raises(ValueError, match=r"'3': it must be latest, best or one of the steps \[2, 4\]"):
      checkpoints.find('3')
    checkpoints.save(5, trees(5), 0.9)  # of equal ones the latest
    checkpoints.save(6, trees(6))
    checkpoints.wait()
    assert checkpoints.steps() == [5, 6]


def test_nothing_to_find(tmp_path):
  with Checkpoints(tmp_path, metric='accuracy') as checkpoints:
    with pytest.raises(ValueError, match='holds no complete checkpoint'):
      checkpoints.find('latest')
    checkpoints.save(1, trees(1))
    checkpoints.wait()
    with pytest.raises(ValueError, match='no checkpoint was saved with its accuracy'):
      checkpoints.find('best')


def test_what_cannot_be_written_is_told_and_the_one_before_stays(tmp_path):
  """The limit on the size of a file stands for a full disk: both fail in the middle of writing."""
  with (
    pytest.raises(SaveError, match=r'checkpoint 2 could not be written: \S'),
    Checkpoints(tmp_path, metric='accuracy') as checkpoints,
  ):
    checkpoints.save(1, trees(1))
    checkpoints.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
      resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
      checkpoints.save(2, {'t': {'large': np.random.default_rng(0).random(1 << 19)}})
      checkpoints.wait()
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  with Checkpoints(tmp_path, metric='accuracy') as checkpoints:
    assert checkpoints.steps() == [1]
    assert_equal(checkpoints.restore(1, trees()), trees(1))


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
  with Checkpoints(tmp_path, metric='accuracy') as checkpoints:
    checkpoints.save(1, trees(1))
    checkpoints.wait()
    needed = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(trees(2)))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage._replace(free=needed - 1))
    message = f'checkpoint 2 could not be written: No space left on device: it takes up to {needed} bytes'
    with pytest.raises(SaveError, match=message):
      checkpoints.save(2, trees(2))
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage._replace(free=needed))
    assert checkpoints.steps() == [1]
    checkpoints.save(2, trees(2))
  assert {path.name for path in tmp_path.iterdir()} == {'2'}


def test_a_half_written_one_is_ignored_and_replaced(tmp_path):
  with Checkpoints(tmp_path, keep=3, metric='accuracy') as checkpoints:
    checkpoints.save(5, trees(5))
  # As a killed process leaves it, and as a copy that broke off leaves it.
  (tmp_path / '6.orbax-checkpoint-tmp' / 'variables.orbax-checkpoint-tmp').mkdir(parents=True)
  (tmp_path / '7' / 'variables').mkdir(parents=True)
  with Checkpoints(tmp_path, read_only=True, metric='accuracy') as checkpoints:
    assert checkpoints.latest() == 5
  assert (tmp_path / '6.orbax-checkpoint-tmp').exists()
  with Checkpoints(tmp_path, keep=3, metric='accuracy') as checkpoints:
    assert checkpoints.latest() == 5
    for step in (6, 7):
      checkpoints.save(step, trees(step))
    checkpoints.wait()
    assert checkpoints.latest() == 7
    assert_equal(checkpoints.restore(7, trees()), trees(7))
  assert {path.name for path in tmp_path.iterdir()} == {'5', '6', '7'}


def test_one_that_does_not_fit_is_refused_and_stays(tmp_path):
  with Checkpoints(tmp_path, metric='accuracy') as checkpoints:
    checkpoints.save(1, trees(1))
    checkpoints.wait()
    files = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}

    wider = {'variables': trees(0, width=5)['variables']}
    with pytest.raises(ValueError, match=r'does not fit.*conv/kernel \(3, 4\) float32 instead of \(3, 5\)'):
      checkpoints.restore(1, wider)

    half = {'variables': {'params': {'conv': {'kernel': np.zeros((3, 4), np.float16), 'bias': np.zeros(4)}}}}
    with pytest.raises(ValueError, match=r'kernel \(3, 4\) float32 instead of \(3, 4\) float16'):
      checkpoints.restore(1, half)

    other = {'variables': {'params': {'conv': {'kernel': np.zeros((3, 4), np.float32)}, 'new': np.zeros(2)}}}
    with pytest.raises(ValueError, match=r'missing in it: variables/params/new.*only in it: .*conv/bias'):
      checkpoints.restore(1, other)

    with pytest.raises(ValueError, match='missing in it: weights/a'):
      checkpoints.restore(1, {'weights': {'a': np.zeros(1)}})

    assert files == {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}


def test_long_lists_of_differences_are_cut(tmp_path):
  many = {'variables': {f'p{i:02d}': np.zeros(1, np.float32) for i in range(30)}}
  with Checkpoints(tmp_path, metric='accuracy') as checkpoints:
    checkpoints.save(1, {'variables': {'q': np.zeros(1, np.float32)}})
    checkpoints.wait()
    with pytest.raises(ValueError, match=r'p05 \(1,\) float32 and 24 more; only in it: variables/q'):
      checkpoints.restore(1, many)


def test_wrong_settings(tmp_path):
  with pytest.raises(ValueError, match=r'train\.keep_checkpoints must be 1 or more'):
    Checkpoints(tmp_path / 'new', keep=0)
  with pytest.raises(FileNotFoundError, match='no checkpoint to restore'):
    Checkpoints(tmp_path / 'new', read_only=True)
  assert not (tmp_path / 'new').exists()
