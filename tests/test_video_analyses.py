"""What is looked at in a network of clips: files, maps on frames, mistakes, samples, exports."""

import json
import runpy

import jax
import numpy as np
import pytest
from clip_runs import clip_run_config
from run_files import make_run

from ctx_flax.analysis import failures, grad_cam, offsets, predict, recall_curves, report
from ctx_flax.analysis.run import open_run
from ctx_flax.downstream.export import export


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  return tmp_path_factory.mktemp('moves') / 'videos'


@pytest.fixture(scope='module')
def workdir(videos, tmp_path_factory):
  return make_run(clip_run_config(videos), tmp_path_factory.mktemp('runs') / 'run')


@pytest.fixture
def config(videos):
  config = clip_run_config(videos)
  config.grad_cam.update(indices=(0, 9), steps=0)
  return config


@pytest.mark.slow
def test_files_are_classified(videos, workdir, config, tmp_path, capsys):
  open_run(config, workdir)  # makes the videos
  (tmp_path / 'text.mp4').write_text('no video')
  named = videos / 'test' / 'cat_left'
  config.predict.update(
    images=f'{named},{tmp_path / "text.mp4"}', format='jsonl', output=str(tmp_path / 'said.jsonl')
  )
  found = predict.predict(config, workdir)
  (line,) = (tmp_path / 'said.jsonl').read_text().splitlines()
  said = json.loads(line)
  assert said['video'] == str(named / '0000.mp4') and said == json.loads(json.dumps(found[0]))
  assert [step['kept'] for step in said['funnel'][:-1]] == [8, 7, 6]
  assert sum(c['probability'] for c in said['classes']) == pytest.approx(1)
  errors = capsys.readouterr().err
  assert 'unreadable video left out' in errors and '1 of 2 videos could not be read' in errors


@pytest.mark.slow
def test_maps_lie_on_frames(workdir, config):
  run = open_run(config, workdir)
  found = grad_cam.write(run)
  maps = found['maps']['ctx_resnet_mini']
  assert maps.shape == (2, 2, 4, 4, 4)  # stage 3, the last of 4 x 4 or more
  # A gradient by hand: the weight of a channel is its mean over all positions of all frames.
  images = grad_cam.chosen_images(run, '', (0,), 'grad_cam')
  number = int(found['classes'][0, 0])

  def score(extra):
    _, out = run.model.apply(run.variables, images.arrays, train=False, add={'stage3': extra})
    return out['scores4'][0, number], out['stage3']

  zeros = np.zeros((1, 4, 4, 4, 64), np.float32)
  gradient, features = jax.jit(jax.grad(score, has_aux=True))(zeros)
  weights = np.asarray(gradient).mean((1, 2, 3), keepdims=True)
  expected = np.maximum((weights * np.asarray(features)).sum(-1), 0)[0]
  np.testing.assert_allclose(maps[0, 0], expected, rtol=1e-3, atol=2e-3 * expected.max())
  picture = run.folder / 'grad_cam.png'
  assert picture.exists()


@pytest.mark.slow
@pytest.mark.parametrize('argument', ['', 'frame', 'plain'])
def test_a_report_of_clips(videos, argument, tmp_path):
  config = clip_run_config(videos, argument)
  config.grad_cam.steps = 2  # curves of clips
  config.report.images = 2
  config.offsets.sample = 8
  path = report.report(config, make_run(config, tmp_path / 'run'))
  text = path.read_text()
  assert ('Where the kernels sample' in text) == ('plain' not in argument)
  assert 'MACs of a clip' in text


@pytest.mark.slow
def test_mistakes_and_recall(workdir, config):
  run = open_run(config, workdir)
  decided = failures.write(run)
  assert len(decided['label']) == 40 and (run.folder / 'failures_gallery.png').exists()
  ranks = recall_curves.write(run)
  assert ranks['counts']['all'][0] <= 8


@pytest.mark.slow
def test_samples_are_those_of_the_middle_frame(workdir, config):
  config.offsets.update(indices=(0,), sample=4, block='2.0')
  run = open_run(config, workdir)
  found = offsets.write(run)
  images = offsets.chosen_images(run, '', (0,), 'offsets')
  _, out = run.apply(run.variables, images.arrays)
  middle = np.asarray(out['mask']['2.0'])[:, 2]
  np.testing.assert_allclose(found['sampling'].mask, middle, rtol=1e-5)
  assert images.pixels.shape == (1, 32, 32, 3)
  np.testing.assert_array_equal(images.pixels, images.frames[:, 2])


@pytest.mark.slow
def test_an_export_takes_clips(workdir, config):
  folder = export(config, workdir)
  network, about = runpy.run_path(str(folder / 'load.py'))['load'](str(folder))
  run = open_run(config, workdir)
  clips = np.random.default_rng(0).normal(size=(3, 4, 32, 32, 3)).astype(np.float32)
  np.testing.assert_allclose(network(clips), run.apply(run.variables, clips)[0], rtol=1e-4, atol=1e-4)
  assert json.loads(about['model'])['segments'] == 4
  assert 'network(clips)  # float32 (b, 4, 32, 32, 3)' in (folder / 'README.md').read_text()
