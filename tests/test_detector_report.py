"""The report of a detector: one file that asks for nothing, of one run and of two."""

import dataclasses
import json

import numpy as np
import pytest
from detection_runs import detection_run_config, make_detection_run, write_images
from test_report import Reader

from ctx_flax.analysis import detected, detector_failures, detector_report, figures, report_sections
from ctx_flax.analysis.detector_report import report
from ctx_flax.configs import saved
from ctx_flax.models.summary import Layer
from ctx_flax.tasks.detection.average_precision import coco_metrics
from ctx_flax.tasks.detection.ground_truth import GroundTruth
from ctx_flax.tasks.detection.task import Detection
from ctx_flax.training.halt import Halt

SECTIONS = ['summary', 'curves', 'detections', 'failures', 'network', 'config', 'environment']


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """(Folder of a contextual run with metrics, folder of a plain one without)."""
  folder = tmp_path_factory.mktemp('report')
  root = write_images(folder / 'coco')
  contextual, plain = (
    make_detection_run(detection_run_config(root, argument), folder / name)
    for name, argument in (('contextual', ''), ('plain', 'plain'))
  )
  lines = [{'step': s, 'train/rpn_class': 1 / s, 'train/loss': 2 / s, 'learning_rate': 0.1} for s in (1, 2)]
  lines[1] |= {'test/raw/mask_ap': 0.25, 'test/raw/box_ap': 0.5}
  (contextual / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
  return contextual, plain


def config_of(workdir, **changes):
  config = saved.get_config(str(workdir))
  config.failures.update(images=2)
  config.report.update(images=2, **changes)
  return config


def pretended(run):
  """As `detect`: all that is annotated, every other one twice as wide."""
  truth = GroundTruth(run.source.ground_truth())
  results = []
  for number, record in enumerate(truth.annotations):
    x, y, w, h = record['bbox']
    code = record['segmentation'] | {'counts': record['segmentation']['counts'].decode()}
    result = {'image_id': record['image_id'], 'category_id': record['category_id'], 'segmentation': code}
    results.append(result | {'score': 0.9 - 0.01 * number, 'bbox': [x, y, w * (1 + number % 2), h]})
  metrics = {'detections': len(results) / 10, 'overflow': 0.0} | coco_metrics(truth, results)
  index = {image: number for number, image in enumerate(run.source.image_ids.tolist())}
  return detected.Detected(truth, results, metrics, 0, index)


@pytest.fixture
def without_testing(monkeypatch):
  for module in (detector_report, detector_failures):
    monkeypatch.setattr(module, 'detect', pretended)
  monkeypatch.setattr(figures, 'DPI', 30)


@pytest.mark.slow
def test_everything_is_in_it(runs, without_testing, capsys):
  contextual, plain = runs
  config = config_of(contextual, beside=str(plain))
  config.failures.kind = 'box'
  path = report(config, contextual)
  text = path.read_text()
  read = Reader(text)
  assert not read.open and path == contextual / 'analysis' / 'report.html'
  assert [name for name in read.ids if name in SECTIONS] == SECTIONS
  outside = [link for link in read.links if not link.startswith(('#', 'data:image/png;base64,'))]
  assert not outside and all(image['alt'] for image in read.images)
  assert len(read.images) == 2 + 1 + 5  # curves, detections, failures
  assert '<th>contextual, step 2</th><th>plain, step 2</th>' in text
  assert 'mask_rcnn with ctx_convnext_mini on coco, raw weights of step 2' in text
  for words in ('10, of which 8, 6, 4', 'none, a plain network', 'AP75', '100.0 %', 'all 3 classes, by box'):
    assert words in text, words
  for words in ('neck', 'million MACs', 'failures.score', 'jaxlib', 'false detections'):
    assert words in text, words
  assert {p.stem for p in path.parent.glob('*.svg')} >= {'curves', 'curves_beside', 'detections'}
  said = capsys.readouterr().out
  assert 'test AP raw: 100.0 % of masks' in said and 'needs nothing else' in said


def test_a_run_alone_without_metrics(runs, without_testing, monkeypatch):
  """Without the figures of its failures, and a network that is summarised: they have tests of their own."""
  _, plain = runs
  monkeypatch.setattr(
    Detection, 'layers', lambda *_: [Layer('neck/conv', 'Conv', (8, 8, 4), 1234, 5_000_000)]
  )
  monkeypatch.setattr(detector_failures, 'draw', lambda *_: {})
  text = report(config_of(plain), plain).read_text()
  read = Reader(text)
  assert not read.open and [name for name in read.ids if name in SECTIONS] == SECTIONS
  assert 'There is no metrics.jsonl' in text and len(read.images) == 1
  for words in (
    'mask_rcnn with convnext_mini on coco',
    'none, a plain network',
    '100.0 %',
    '1,234',
    'neck/conv',
  ):
    assert words in text, words


@pytest.mark.slow
def test_a_run_is_tested(runs):
  contextual, _ = runs
  text = report(config_of(contextual), contextual).read_text()
  written = json.loads((contextual / 'analysis' / 'failures.json').read_text())
  assert f'{100 * written["metrics"]["mask_ap"]:.1f} %' in text and len(Reader(text).images) == 1 + 1 + 5


def test_the_worst_classes_come_first():
  one = {'class': 'cat', 'objects': 2, 'missed': 1, 'false': 0, 'ap': 0.5, 'ap_at_overlap': 0.75}
  classes = [one, one | {'class': 'dog', 'ap': 0.25}, one | {'class': 'kite', 'objects': 0, 'ap': np.nan}]
  numbers = {'overlap': 0.5, 'kind': 'mask', 'score': 0.5, 'classes': classes}
  text = detector_report.class_table(numbers)
  assert text.index('dog') < text.index('cat') and 'kite' not in text and 'all 2 classes' in text
  assert '25' in text and '75' in text


def test_two_runs_of_one_title():
  @dataclasses.dataclass
  class Run:
    title: str
    workdir: str

  first = Run('run, step 2', 'a/run')
  assert report_sections.title_beside(first, Run('run, step 3', 'b/run')) == 'run, step 3'
  assert report_sections.title_beside(first, Run('run, step 2', 'b/run')) == 'b/run'


def test_images_are_spread():
  assert report_sections.spread(4, 10) == (0, 3, 6, 9)
  assert report_sections.spread(4, 2) == (0, 1) and report_sections.spread(1, 5) == (0,)


def test_wrong_input(runs, tmp_path):
  contextual, _ = runs
  with pytest.raises(Halt, match=r'report\.beside is .* holds no config\.json'):
    report(config_of(contextual, beside=str(tmp_path)), contextual)
  config = config_of(contextual)
  config.report.images = 0
  with pytest.raises(Halt, match=r'report\.images must be 1 or more, but is 0'):
    report(config, contextual)
