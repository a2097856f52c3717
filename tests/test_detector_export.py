"""The exported detector equals the run's, needs jax and numpy alone, and tells what it does not take."""

import ast
import json
import pathlib
import runpy
import sys

import numpy as np
import pytest
from coco_files import picture
from detection_runs import detection_run_config, make_detection_run, write_images
from PIL import Image

from ctx_flax.analysis.detector_predict import detections
from ctx_flax.analysis.run import DETECTORS, open_run
from ctx_flax.downstream import detector_loader
from ctx_flax.downstream.detector_export import canvas_of, export
from ctx_flax.models.weight_files import load_weights
from ctx_flax.tasks.detection.paste import paste_mask
from ctx_flax.training import restore
from ctx_flax.training.halt import Halt

HW = (48, 64), (64, 48), (48, 48)  # that tests do not resize
ABOUT = {'short_side': 48, 'long_side': 64, 'canvas': [64, 64]}


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """Of a run that is exported for batches of two."""
  config = detection_run_config(write_images(tmp_path_factory.mktemp('coco')))
  config.export.batch_size = 2
  return config


@pytest.fixture(scope='module')
def exported(config, tmp_path_factory):
  """(folder, config) of an exported run that had come to step 2."""
  return export(config, make_detection_run(config, tmp_path_factory.mktemp('exported') / 'run')), config


@pytest.mark.slow
def test_equal_to_the_live_detector(exported, tmp_path, monkeypatch):
  folder, config = exported
  # As somebody who has only the folder, jax and numpy.
  monkeypatch.setitem(sys.modules, 'ctx_flax', None)
  program = runpy.run_path(str(folder / 'load.py'))
  network, about = program['load'](str(folder))
  images = [picture(number, *hw) for number, hw in enumerate(HW)]
  found = program['detect'](network, about, images)
  monkeypatch.undo()
  assert about['class_names'] == ['cat', 'dog', 'bird'] and about['category_ids'] == [1, 3, 90]
  files = [str(tmp_path / f'{number}.png') for number in range(len(HW))]
  for image, path in zip(images, files, strict=True):
    Image.fromarray(image).save(path)
  run = open_run(config, folder.parent, served=DETECTORS)
  for (index, hw, expected, _), objects in zip(detections(run, files), found, strict=True):
    valid = expected['valid']
    assert len(objects) == valid.sum() > 3 and hw == HW[index]
    assert [one['label'] for one in objects] == expected['labels'][valid].tolist()
    np.testing.assert_allclose([one['box'] for one in objects], expected['boxes'][valid], atol=1e-3)
    np.testing.assert_allclose([one['score'] for one in objects], expected['scores'][valid], atol=1e-5)
    pasted = [paste_mask(expected['masks'][n], expected['boxes'][n], hw) for n in np.flatnonzero(valid)]
    masks = np.array([one['mask'] for one in objects])
    assert masks.any() and masks.shape[1:] == hw and np.mean(masks != np.array(pasted)) < 1e-3


def test_it_resizes_as_tests_do():
  """OpenCV's pixels but for a few that differ by one, in the corner of the canvas."""
  import cv2

  rng = np.random.default_rng(0)
  for h, w in ((100, 60), (20, 50), (48, 64), (31, 31), (96, 128)):
    image = rng.integers(0, 256, (h, w, 3), np.uint8)
    row = detector_loader.prepare(image, ABOUT)
    new_h, new_w = row['image_hw'].tolist()
    assert max(new_h, new_w) <= 64 and (min(new_h, new_w) == 48 or max(new_h, new_w) == 64)
    np.testing.assert_allclose(row['scale'], [new_h / h, new_w / w], rtol=1e-6)
    expected = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR).astype(int)
    apart = np.abs(row['image'][:new_h, :new_w] - expected)
    # Halved, OpenCV rounds another way.
    assert apart.max() <= 1 and np.mean(apart > 0) < (0.6 if (h, w) == (96, 128) else 0.02)
    assert not row['image'][new_h:].any() and not row['image'][:, new_w:].any()


def test_masks_are_pasted_as_by_tests():
  rng = np.random.default_rng(0)
  mask = rng.random((28, 28), np.float32)
  for box in ((3.2, 5.1, 30.7, 44.4), (-10, -5, 90, 20), (7, 7, 7, 20), (50, 50, 60.5, 61), (100, 3, 120, 9)):
    box = np.array(box, np.float32)
    ours, theirs = detector_loader.paste(mask, box, (48, 64)), paste_mask(mask, box, (48, 64))
    assert ours.shape == (48, 64) and np.mean(ours != theirs) < 1e-3
    assert ours.any() == theirs.any()


@pytest.mark.parametrize(
  'image, message',
  [
    (np.zeros((48, 64, 3), np.float32), r'the image must be an array uint8 \(h, w, 3\), RGB'),
    (np.zeros((48, 64), np.uint8), r'must be an array uint8'),
    (np.zeros((0, 64, 3), np.uint8), 'has 0 x 64 pixels: it is empty'),
    (
      np.zeros((90, 60, 3), np.uint8),
      r'has 90 x 60 pixels .*, resized 64 x 43, and the canvas 32 x 64: .*--config\.export\.canvas=\(H,W\)',
    ),
  ],
)
def test_images_that_it_does_not_take(image, message):
  with pytest.raises(ValueError, match=message) as raised:
    detector_loader.prepare(image, ABOUT | {'canvas': [32, 64]})
  assert '\n' not in str(raised.value)


def test_the_loader_needs_little():
  tree = ast.parse(pathlib.Path(detector_loader.__file__).read_text())
  imported = {
    alias.name.split('.')[0]
    for node in ast.walk(tree)
    if isinstance(node, ast.Import | ast.ImportFrom)
    for alias in node.names
  }
  assert imported == {'functools', 'json', 'jax', 'numpy'}


@pytest.mark.slow
def test_what_is_told_beside_it(exported):
  folder, config = exported
  assert (folder / 'load.py').read_text() == pathlib.Path(detector_loader.__file__).read_text()
  text = (folder / 'README.md').read_text()
  size = (folder / 'weights.safetensors').stat().st_size / 1e6
  assert f'| {size:.2f} |' in text and 'uint8 (2, 64, 64, 3)' in text and 'short side of 48 pixels' in text
  variables, about = load_weights(folder / 'weights.safetensors')
  assert (about['canvas'], about['batch_size'], about['step']) == ([64, 64], 2, 2) and variables['params']
  assert json.loads(json.dumps(about['model']))['name'] == 'mask_rcnn'
  # A run starts from it, and its classes are known without the data.
  assert restore.read_weights(folder / 'weights.safetensors').about['category_ids'] == [1, 3, 90]
  config = config.copy_and_resolve_references()
  config.data.path, config.init.weights = '/nowhere', str(folder / 'weights.safetensors')
  run = open_run(config, folder.parent.parent / 'none', images=False, served=DETECTORS)
  assert run.class_names == ('cat', 'dog', 'bird') and run.source.category_ids == (1, 3, 90)


def test_canvases(config):
  config = config.copy_and_resolve_references()
  config.data.canvases = ((64, 96), (64, 64), (32, 128))
  assert canvas_of(config) == (64, 96)
  config.export.canvas = (96, 64)
  assert canvas_of(config) == (96, 64)


@pytest.mark.parametrize(
  'canvas, message',
  [
    ((64, 100), r'export\.canvas is 64 x 100: its sides must be multiples of 32, such as 64 x 128'),
    ((32, 32), r'export\.canvas is 32 x 32, but .*eval\.short_side=48'),
    ((0, 32), r'export\.canvas must be \(height, width\), 1 to 8192, or \(\), but is \(0, 32\)'),
    ((64,), r'export\.canvas must be \(height, width\)'),
  ],
)
def test_canvases_that_no_detector_has(config, tmp_path, canvas, message):
  config = config.copy_and_resolve_references()
  config.export.canvas = canvas
  with pytest.raises(Halt, match=message) as halted:
    export(config, tmp_path / 'none')
  assert halted.value.status == 2


def test_nothing_to_export(config, tmp_path):
  with pytest.raises(Halt, match='does not exist: there is no checkpoint') as halted:
    export(config, tmp_path / 'none')
  assert halted.value.status == 2 and not pathlib.Path(tmp_path / 'none').exists()
