"""The whole of the task of clips: trained, stopped, resumed, tested from several views."""

import contextlib
import json
import shutil

import numpy as np
import pytest
from clip_runs import STEPS, clip_run_config
from program import EVALUATE, free_address, start
from run_files import arrays, half, metric_lines, on_batch

from ctx_flax.configs import saved
from ctx_flax.data import clip_pipeline, clip_sources
from ctx_flax.tasks import run
from ctx_flax.training.halt import Halt

# All of it compiles a training step. What clips add is tested by the files on their parts, and the rest of a
# run by test_loop and test_task.
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('moves') / 'videos'


@pytest.fixture(scope='module', params=['plain', '', 'frame'])
def whole(request, folder, tmp_path_factory):
  """The variant, the folder of an uninterrupted run of it, and its results."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  return request.param, workdir, run.train(clip_run_config(folder, request.param), workdir)


def test_a_run_on_clips(whole):
  variant, workdir, results = whole
  names = {'accuracy', 'top5', 'loss', 'loss4'}
  names |= set() if variant == 'plain' else {'accuracy1', 'recall2', 'recall4'}
  assert results['raw'].keys() >= names
  lines = metric_lines(workdir)
  assert [line['step'] for line in lines] == [1, 2, 3, 4]
  assert 'images_per_second' not in lines[0] and lines[0]['data/bad_videos'] == 0
  assert json.loads((workdir / 'config.json').read_text())['model']['segments'] == 4
  assert (workdir / 'augmented.png').exists()


def test_stopped_and_resumed_with_workers_is_uninterrupted(whole, folder, tmp_path, monkeypatch):
  variant, workdir, results = whole
  config = clip_run_config(folder, variant)
  with monkeypatch.context() as patch:
    on_batch(patch, 3, lambda _: 1 / 0, clip_pipeline)
    with pytest.raises(ZeroDivisionError):
      run.train(config, tmp_path / 'run')
  config.data.update(workers=1, threads=1)
  assert run.train(config, tmp_path / 'run') == results
  expected, resumed = arrays(workdir, STEPS), arrays(tmp_path / 'run', STEPS)
  for name in expected:
    np.testing.assert_array_equal(resumed[name], expected[name], strict=True, err_msg=name)


def test_segments_that_a_run_disagrees_with(whole):
  _, workdir, _ = whole
  config = saved.get_config(str(workdir))
  config.model.segments = 2
  with pytest.raises(Halt, match=r'model\.segments'):
    run.train(config, workdir)


def test_views_are_averaged_whatever_the_batch(whole):
  """Ten crops of 40 videos, in batches of 48 with rows to spare and of 16."""
  _, workdir, _ = whole
  results = []
  for size in (48, 16):
    config = saved.get_config(str(workdir))
    config.eval.update(views='ten_crop', batch_size=size, weights='raw', crop_ratio=0.8)
    results.append(run.evaluate(config, workdir)['raw'])
  assert results[0] == pytest.approx(results[1], rel=1e-5)


@pytest.mark.parametrize('whole', ['plain'], indirect=True)  # sums over processes are those of any network
def test_views_are_averaged_whatever_the_number_of_processes(whole, folder, tmp_path):
  """Ten crops of 40 videos in batches of 16: in the last one the second process has nothing but filling rows.

  Each process has a video that cannot be read.
  """
  _, workdir, _ = whole
  videos = shutil.copytree(folder, tmp_path / 'videos')
  changes = {'data.path': str(videos), 'eval.views': 'ten_crop', 'eval.batch_size': 16}
  changes |= {'eval.crop_ratio': 0.8, 'eval.weights': 'raw'}
  config = saved.get_config(str(workdir))
  config.update_from_flattened_dict(changes)
  source = clip_sources.open_clip_source(config.data, 'test')
  damaged = [source.name(i) for i in (3, 12)]
  for name in damaged:
    (videos / name).write_bytes(half((videos / name).read_bytes()))
  alone = run.evaluate(config, workdir)

  arguments = json.dumps(changes), str(workdir), free_address()
  with contextlib.ExitStack() as stack:
    processes = [start(*arguments, str(i), program=('-c', EVALUATE)) for i in (0, 1)]
    for process in processes:
      stack.callback(process.kill)
    ended = [process.communicate() for process in processes]
  assert [(process.returncode, errors) for process, (_, errors) in zip(processes, ended, strict=True)] == [
    (0, '')
  ] * 2
  for own, other, (written, _) in zip(damaged, damaged[::-1], ended, strict=True):
    results = json.loads(written.splitlines()[-1])
    assert results['raw'] == pytest.approx(alone['raw'], rel=1e-5, abs=1e-5)
    assert own in written and other not in written  # a process names what it has read
  assert '2 of 40 videos could not be read and do not count' in ended[0][0]
