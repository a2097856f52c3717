"""--mode=failures of a detector: the test it begins with, its files, and what it refuses."""

import csv
import json

import numpy as np
import pytest
from detection_runs import detection_run_config, make_detection_run, write_images
from run_files import contents, half
from tiny import tiny_config

from ctx_flax import files
from ctx_flax.__main__ import mode_of
from ctx_flax.analysis import detected, detector_failures, figures
from ctx_flax.analysis.detector_failures import failures
from ctx_flax.analysis.run import DETECTORS, open_run
from ctx_flax.configs import saved
from ctx_flax.tasks.detection.average_precision import coco_metrics
from ctx_flax.tasks.detection.ground_truth import read_ground_truth
from ctx_flax.training import evaluation
from ctx_flax.training.halt import Halt

FIGURES = {f'failures_{name}' for name in ('gallery', 'missed', 'missed_objects', 'confusions', 'precision')}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Of the ten test images the fourth cannot be read."""
  root = write_images(tmp_path_factory.mktemp('coco'))
  damaged = root / 'val2017' / '004.png'
  damaged.write_bytes(half(damaged.read_bytes()))
  return root


@pytest.fixture(scope='module')
def workdir(root, tmp_path_factory):
  return make_detection_run(detection_run_config(root), tmp_path_factory.mktemp('runs') / 'run')


@pytest.fixture
def config(workdir):
  config = saved.get_config(str(workdir))
  config.failures.update(images=4, pairs=1, score=0.3)
  return config


@pytest.mark.slow
def test_it_begins_with_a_test(workdir, root, capsys):
  """Sharded, with progress; an image that cannot be read has no detections, and its objects count."""
  found = detected.detect(open_run(saved.get_config(str(workdir)), workdir, served=DETECTORS))
  said, errors = capsys.readouterr()
  assert errors.endswith('tested 10/10  images  0:00 left\n') and not said
  assert 'counts in the test as one without detections: 004.png' in errors
  assert found.unreadable == 1 and {r['image_id'] for r in found.results} == {*range(1, 11)} - {4}
  truth = read_ground_truth(root / 'annotations' / 'instances_val2017.json')
  metrics = coco_metrics(truth, found.results)
  np.testing.assert_equal({name: found.metrics[name] for name in metrics}, metrics)
  assert found.metrics['detections'] == len(found.results) / 9
  assert found.index == {number + 1: number for number in range(10)}


def test_the_test_is_that_of_evaluate(workdir, monkeypatch, capsys):
  """It runs the evaluator of the task over all images, and shows progress."""
  run = open_run(saved.get_config(str(workdir)), workdir, served=DETECTORS)

  def pretended(task, evaluator, step, variants, source, config, bad, tell):
    assert task is run.task and source is run.source and list(variants) == ['raw']
    tally = evaluator.tally('raw')
    box = np.array([[[1, 0, 31, 28]]], np.float32)
    rows = {'scores': [[0.5]], 'labels': [[0]], 'valid': [[True]], 'masks': np.ones((1, 1, 28, 28))}
    for tested, index in enumerate((1, 0), 1):
      tally.add({name: np.asarray(row) for name, row in rows.items()} | {'boxes': box, 'index': [index]})
      tell(5 * tested)
    bad.add([3], 'is bad')
    return {'raw': tally.result({'detections': (2.0, 2.0)})}

  monkeypatch.setattr(evaluation, 'test', pretended)
  found = detected.detect(run)
  assert [r['image_id'] for r in found.results] == [2, 1] and found.results[0]['bbox'] == [1, 0, 30, 28]
  assert found.unreadable == 1 and found.metrics['detections'] == 1 and found.metrics['box_ap'] >= 0
  assert len(found.ground_truth.annotations) == 20
  said, errors = capsys.readouterr()
  assert errors.splitlines()[-1].startswith('unreadable image is bad: 004.png')
  assert 'tested 10/10  images' in errors and not said


@pytest.fixture(scope='module')
def tested(root):
  """As `detect` may return it: of each image one object too much, and every third of a wrong class."""
  truth = read_ground_truth(root / 'annotations' / 'instances_val2017.json')
  results = []
  for number, record in enumerate(truth.annotations):
    if record['image_id'] == 4:
      continue
    code = record['segmentation']
    result = {key: record[key] for key in ('image_id', 'category_id', 'bbox')}
    result |= {'score': 0.9 - 0.04 * number, 'segmentation': code | {'counts': code['counts'].decode()}}
    results += [result, result | {'score': 0.2}]
    if number % 3 == 0:
      result['category_id'] = 90
  metrics = {'detections': len(results) / 9, 'overflow': 0.0} | coco_metrics(truth, results)
  return detected.Detected(truth, results, metrics, 1, {number + 1: number for number in range(10)})


@pytest.fixture
def without_testing(tested, monkeypatch):
  monkeypatch.setattr(detector_failures, 'detect', lambda run: tested)
  monkeypatch.setattr(figures, 'DPI', 40)


def test_its_files(workdir, config, without_testing, capsys):
  found = failures(config, workdir)
  folder = workdir / 'analysis'
  assert found['files'].keys() == FIGURES
  for name in FIGURES:
    for kind in ('png', 'svg'):
      assert (folder / f'{name}.{kind}').stat().st_size > 1000
  written = json.loads((folder / 'failures.json').read_text())
  assert written['run'] == 'run, step 2' and written['images'] == 10 and written['unreadable_images'] == 1
  assert written['metrics']['mask_ap'] == found['numbers']['metrics']['mask_ap'] > 0
  assert [one['class'] for one in written['classes']] == ['cat', 'dog', 'bird']
  assert len(written['confusions']) == 1 and len(written['most_confident']['score']) == 4
  rows = list(csv.DictReader((folder / 'failures.csv').read_text().splitlines()))
  scores = [float(row['score']) for row in rows]
  assert (
    len(rows) == 4
    and scores == sorted(scores, reverse=True)
    and {r['error'] for r in rows}
    <= {*('duplicate', 'class', 'location', 'class and location', 'background')}
  )
  lost = list(csv.DictReader((folder / 'failures_missed.csv').read_text().splitlines()))
  assert len(lost) == 4 and all(float(row['best_score']) < 0.3 for row in lost)
  captions = (folder / 'failures_gallery.svg').read_text()
  assert f'{rows[0]["detected"]} {100 * scores[0]:.0f} %: {rows[0]["error"]}' in captions
  out = capsys.readouterr().out
  false, missed = written['false_detections'], written['missed']
  assert f'{false["false"]} of {false["detections"]} detections of 30 % or more are false: ' in out
  assert f'{missed["missed"]} of {missed["objects"]} objects are missed' in out
  assert '1 of 10 images could not be read' in out and 'test AP raw: ' in out and 'AP75' in out
  assert max(map(len, (line for line in out.splitlines() if line.startswith('│')))) <= 80
  assert not list(folder.glob('*.part'))


@pytest.mark.slow
def test_an_unwritable_result_leaves_what_was_there(workdir, config, without_testing, monkeypatch):
  """Interrupted while it writes, a file is the old one or the new one."""
  drawn = {name: figures.new_figure()[0] for name in ('failures_gallery', 'failures_missed')}
  monkeypatch.setattr(detector_failures, 'draw', lambda *_: drawn)
  failures(config, workdir)
  folder = workdir / 'analysis'
  before = contents(folder)
  config.failures.score = 0.4
  save = figures.save

  def interrupted(figure, path):
    if path.name == 'failures_missed':
      with files.replacing(path.with_suffix('.png')) as part:
        part.write_bytes(b'half')
        raise KeyboardInterrupt
    return save(figure, path)

  monkeypatch.setattr(figures, 'save', interrupted)
  with pytest.raises(KeyboardInterrupt):
    failures(config, workdir)
  assert contents(folder) == before
  monkeypatch.setattr(figures, 'save', lambda *_: (_ for _ in ()).throw(OSError('disk full')))
  with pytest.raises(Halt, match='analysis/failures could not be written: disk full') as halted:
    failures(config, workdir)
  assert halted.value.status == 1


def test_the_modes_of_detectors():
  assert mode_of('failures', 'detection') == 'ctx_flax.analysis.detector_failures:failures'
  assert mode_of('report', 'detection') == 'ctx_flax.analysis.detector_report:report'
  assert mode_of('failures', 'video') == 'ctx_flax.analysis.failures:failures'


def test_images_without_public_objects_are_refused(root, workdir, config, tmp_path):
  (tmp_path / 'test2017').mkdir()
  for path in root.glob('train2017/*.png'):
    (tmp_path / 'test2017' / path.name).write_bytes(path.read_bytes())
  listed = json.loads((root / 'annotations' / 'instances_val2017.json').read_text())
  del listed['annotations']
  (tmp_path / 'annotations').mkdir()
  (tmp_path / 'annotations' / 'image_info_test-dev2017.json').write_text(json.dumps(listed))
  config.data.update(path=str(tmp_path), test_split='test-dev2017')
  with pytest.raises(
    Halt, match=r'image_info_test-dev2017\.json lists no objects, .* take another data\.test_split'
  ) as halted:
    failures(config, workdir)
  assert halted.value.status == 2 and '\n' not in str(halted.value)


@pytest.mark.parametrize(
  'field, value, message',
  [
    ('images', 0, 'failures.images must be 1 or more, but is 0'),
    ('pairs', 0, 'failures.pairs must be 1 or more, but is 0'),
    ('score', 1.5, 'failures.score must be a score, 0 to 1, but is 1.5'),
    ('overlap', 0.0, 'failures.overlap must be an IoU, above 0 and at most 1, but is 0.0'),
    ('kind', 'boxes', "failures.kind must be one of box, mask, but is 'boxes'"),
  ],
)
def test_wrong_input(config, tmp_path, field, value, message):
  config.failures[field] = value
  with pytest.raises(Halt) as halted:
    failures(config, tmp_path)
  assert str(halted.value) == message and halted.value.status == 2


def test_another_task_is_refused(tmp_path):
  with pytest.raises(Halt, match='serves runs of detection, but this is one of classification'):
    failures(tiny_config(), tmp_path)


def test_an_image_that_fits_into_no_canvas(workdir, config):
  config.data.canvases = ((32, 64),)
  with pytest.raises(Halt, match=r'pixels'):
    failures(config, workdir)
