"""Detectors on several processes, and one program for each canvas."""

import collections
import contextlib
import json

import pytest
from detection_runs import detection_run_config, make_detection_run, write_images
from program import EVALUATE, free_address, start
from run_files import half

from ctx_flax.configs import saved
from ctx_flax.tasks import run
from ctx_flax.tasks.detection import objective


@pytest.mark.slow
def test_a_test_is_the_same_on_any_number_of_processes(tmp_path):
  """Ten images on two canvases in batches of 8, so that both are filled up; one image cannot be read."""
  root = write_images(tmp_path / 'coco')
  config = detection_run_config(root)
  config.data.update(canvases=((32, 64), (64, 64)), scales=(24,))
  config.eval.short_side = 30
  workdir = make_detection_run(config, tmp_path / 'run')
  name = '003.png'
  damaged = root / 'val2017' / name
  damaged.write_bytes(half(damaged.read_bytes()))
  alone = run.evaluate(saved.get_config(str(workdir)), workdir)
  arguments = json.dumps({'eval.results': str(tmp_path / 'results')}), str(workdir), free_address()
  with contextlib.ExitStack() as stack:
    processes = [start(*arguments, str(i), program=('-c', EVALUATE), devices=4) for i in (0, 1)]
    for process in processes:
      stack.callback(process.kill)
    ended = [process.communicate() for process in processes]
  assert [(process.returncode, errors) for process, (_, errors) in zip(processes, ended, strict=True)] == [
    (0, '')
  ] * 2
  for written, _ in ended:
    results = json.loads(next(line for line in written.splitlines() if line.startswith('{"raw"')))
    assert results['raw'] == pytest.approx(alone['raw'], rel=1e-6, nan_ok=True)
  assert sum(name in written for written, _ in ended) == 1  # a process names what it has read
  assert '1 of 10 images could not be read' in ended[0][0] and 'could not be read' not in ended[1][0]
  masks = json.loads((tmp_path / 'results' / 'raw_masks.json').read_text())
  assert len(masks) == round(9 * alone['raw']['detections'])


@pytest.mark.slow
def test_a_step_is_traced_once_for_each_canvas(tmp_path, monkeypatch):
  root = write_images(tmp_path / 'coco')
  config = detection_run_config(root)
  config.data.update(canvases=((32, 64), (64, 64)), scales=(24, 48))
  config.train.update(steps=6, eval_every=0, checkpoint_every=6)
  traced = collections.Counter()
  original = objective.training_terms

  def counting(model, images, *args):
    traced[images.shape] += 1
    return original(model, images, *args)

  monkeypatch.setattr(objective, 'training_terms', counting)
  run.train(config, tmp_path / 'run')
  assert len(traced) > 1 and set(traced.values()) == {1}, traced
