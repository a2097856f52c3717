"""The whole of the task of detection: trained, stopped, resumed, tested, its files, and what it refuses."""

import json

import jax
import numpy as np
import pytest
from detection_runs import STEPS, detection_run_config, make_detection_run, write_images
from PIL import Image
from run_files import arrays, half, metric_lines, on_batch

from ctx_flax.configs import saved
from ctx_flax.data import detection_pipeline
from ctx_flax.tasks import run
from ctx_flax.tasks.detection.average_precision import coco_metrics
from ctx_flax.tasks.detection.ground_truth import read_ground_truth
from ctx_flax.training.checkpoints import Checkpoints
from ctx_flax.training.halt import Halt

METRICS = {
  f'{kind}_{name}' for kind in ('box', 'mask') for name in ('ap', 'ap50', 'ap75', 'ap_small', 'ar100')
}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return write_images(tmp_path_factory.mktemp('coco'))


@pytest.fixture(scope='module')
def random(root, tmp_path_factory):
  """The folder of a run whose weights are random."""
  return make_detection_run(detection_run_config(root), tmp_path_factory.mktemp('random') / 'run')


@pytest.fixture(scope='module')
def whole(root, tmp_path_factory):
  """The folder of an uninterrupted run, and its results."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  return workdir, run.train(detection_run_config(root), workdir)


@pytest.mark.slow
def test_a_run_of_a_detector(whole):
  workdir, results = whole
  assert results.keys() == {'raw'} and results['raw'].keys() >= METRICS | {'detections', 'overflow'}
  assert 0 < results['raw']['mask_ap'] < 1 and 0 < results['raw']['detections'] <= 20
  lines = metric_lines(workdir)
  assert [line['step'] for line in lines] == [1, 2, 3, 4]
  assert [line['step'] for line in lines if 'test/raw/mask_ap' in line] == [2, 4]
  assert lines[-1]['test/raw/mask_ap'] == results['raw']['mask_ap']
  assert lines[-1]['test/raw/mask_ap_large'] is None  # of objects that no image has
  losses = {
    f'train/{name}' for name in ('rpn_class', 'rpn_box', 'class0', 'box0', 'mask0', 'loss', 'accuracy0')
  }
  assert losses <= lines[0].keys() and lines[-1]['train/loss'] < lines[0]['train/loss']
  assert (workdir / 'augmented.png').stat().st_size > 1000
  with Image.open(workdir / 'tested.png') as image:  # four columns, two images with what is detected in each
    assert image.width > 4 * 256


@pytest.mark.slow
def test_the_best_by_the_precision_of_masks_is_kept(whole):
  workdir, _ = whole
  tested = {
    line['step']: line['test/raw/mask_ap'] for line in metric_lines(workdir) if 'test/raw/mask_ap' in line
  }
  with Checkpoints(workdir / 'checkpoints', read_only=True, metric='mask_ap') as checkpoints:
    step, value = checkpoints.best()
  assert value == tested[step] == max(tested.values())


@pytest.mark.slow
def test_stopped_and_resumed_it_is_uninterrupted(whole, root, tmp_path, monkeypatch):
  workdir, results = whole
  with monkeypatch.context() as patch:
    on_batch(patch, 3, lambda _: 1 / 0, detection_pipeline)
    with pytest.raises(ZeroDivisionError):
      run.train(detection_run_config(root), tmp_path / 'run')
  np.testing.assert_equal(run.train(detection_run_config(root), tmp_path / 'run'), results)
  expected, resumed = arrays(workdir, STEPS), arrays(tmp_path / 'run', STEPS)
  for name in expected:
    np.testing.assert_array_equal(resumed[name], expected[name], strict=True, err_msg=name)
  assert metric_lines(tmp_path / 'run') == metric_lines(workdir)


@pytest.mark.slow
def test_an_image_that_cannot_be_read_has_no_detections(random, tmp_path, capsys):
  """What is annotated in it is missed; and detections are written where they are asked for."""
  root = write_images(tmp_path / 'coco')
  damaged = root / 'val2017' / '004.png'
  damaged.write_bytes(half(damaged.read_bytes()))
  config = saved.get_config(str(random))
  config.data.path, config.eval.results = str(root), str(tmp_path / 'results')
  found = run.evaluate(config, random)['raw']
  assert found.keys() >= METRICS | {'detections', 'overflow'}
  written = ' '.join(capsys.readouterr().out.split())
  assert 'unreadable image counts in the test as one without detections: 004.png: ' in written
  assert '1 of 10 images could not be read and count as images without detections' in written
  assert f'test AP raw: {100 * found["mask_ap"]:.1f} % of masks' in written and 'AP75' in written
  boxes, masks = (
    json.loads((tmp_path / 'results' / f'raw_{kind}.json').read_text()) for kind in ('boxes', 'masks')
  )
  assert len(boxes) == len(masks) == round(found['detections'] * 9)
  assert {detection['image_id'] for detection in boxes} == {*range(1, 11)} - {4}
  assert boxes[0].keys() == {'image_id', 'category_id', 'score', 'bbox'}
  assert masks[0].keys() == {'image_id', 'category_id', 'score', 'segmentation'}
  truth = root / 'annotations' / 'instances_val2017.json'
  of_all, of_the_rest = (
    coco_metrics(read_ground_truth(truth, images), masks, ('mask',))
    for images in (range(1, 11), sorted({*range(1, 11)} - {4}))
  )
  np.testing.assert_equal({name: found[name] for name in of_all}, of_all)
  assert of_all['mask_ar100'] < of_the_rest['mask_ar100']


def hide_objects(root, tmp_path, random):
  """The config of a test on images whose objects are not public, as those of COCO's test-dev2017."""
  for path in root.glob('train2017/*.png'):  # training images are not read
    (tmp_path / 'test2017').mkdir(exist_ok=True)
    (tmp_path / 'test2017' / path.name).write_bytes(path.read_bytes())
  listed = json.loads((root / 'annotations' / 'instances_val2017.json').read_text())
  del listed['annotations']
  (tmp_path / 'annotations').mkdir()
  (tmp_path / 'annotations' / 'image_info_test-dev2017.json').write_text(json.dumps(listed))
  config = saved.get_config(str(random))
  config.data.update(path=str(tmp_path), test_split='test-dev2017')
  return config


def test_images_without_public_objects_are_not_tested_on(random, root, tmp_path):
  config = hide_objects(root, tmp_path, random)
  with pytest.raises(
    Halt, match=r'image_info_test-dev2017\.json lists no objects.*--config\.eval\.results=DIR'
  ):
    run.evaluate(config, random)
  config.eval.results = str(tmp_path / 'results')
  config.data.path = str(write_images(tmp_path))
  with pytest.raises(Halt, match=r'lists no objects, so that training could not be tested'):
    run.train(config, tmp_path / 'new')


@pytest.mark.slow
def test_images_without_public_objects(random, root, tmp_path, capsys):
  """Results are written, and there is no precision."""
  config = hide_objects(root, tmp_path, random)
  config.eval.results = str(tmp_path / 'results')
  found = run.evaluate(config, random)['raw']
  assert found.keys() == {'detections', 'overflow'}
  assert len(json.loads((tmp_path / 'results' / 'raw_masks.json').read_text())) == round(
    10 * found['detections']
  )
  assert 'detections an image and nothing to compare them with' in ' '.join(capsys.readouterr().out.split())


@pytest.mark.slow
@pytest.mark.parametrize('name', ['mask_rcnn', 'cascade_mask_rcnn'])
def test_on_one_device_it_computes_what_eight_do(root, tmp_path, monkeypatch, name):
  config = detection_run_config(root, name=name)
  if name == 'cascade_mask_rcnn':
    config.assignment.update(region_iou=(0.5, 0.6, 0.7), region_best=False)
    config.loss.update(anchor_beta=1 / 9, box='giou', box_weight=10.0, stage_weights=(1.0, 0.5, 0.25))
  config.train.update(steps=2, eval_every=0)
  run.train(config, tmp_path / 'eight')
  one = jax.devices()[:1]
  monkeypatch.setattr(jax, 'devices', lambda *_: one)
  monkeypatch.setattr(jax, 'local_devices', lambda *_: one)
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  if name == 'mask_rcnn':  # in a cascade BatchNorm takes its statistics over a part
    config.train.accumulation = 2
  run.train(config, tmp_path / 'one')
  eight, alone = arrays(tmp_path / 'eight'), arrays(tmp_path / 'one')
  for key in eight:
    np.testing.assert_allclose(alone[key], eight[key], rtol=1e-3, atol=1e-5, err_msg=key)


@pytest.mark.slow
def test_check_states_the_memory_of_every_canvas(root, tmp_path, capsys):
  config = detection_run_config(root)
  config.data.canvases = ((64, 64), (64, 96))
  found = run.check(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
  activations = {
    name: memory['activations of the backward pass'] for name, memory in found['memories'].items()
  }
  assert activations.keys() == {'64 x 64', '64 x 96'} and activations['64 x 64'] < activations['64 x 96']
  assert found['memory'] == found['memories']['64 x 96']
  text = capsys.readouterr().out
  assert '64 x 96 MiB' in text and 'GMAC at 64 x 96 px' in text and 'backbone/stage1_block0' in text
