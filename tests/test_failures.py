"""Failures: decisions on hand-made scores, tables with known answers, figures, and a run from end to end."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest
from run_files import make_run
from test_loop import tiny_config

from ctx_flax.analysis import failure_figures, failures
from ctx_flax.analysis.stage_decisions import decide
from ctx_flax.training.halt import Halt


def outputs(scores, considered):
  """`out` of a network: {stage: (b, n)} twice."""
  out = {f'scores{s}': jnp.array(v, jnp.float32) for s, v in scores.items()}
  return out | {f'considered{s}': jnp.array(v, bool) for s, v in considered.items()}


# Three images of class 0: right; lost before stage 3; considered to the end but beaten.
SCORES = {
  1: [[1, 0, 0], [0, 1, 0], [2, 1, 0]],
  2: [[1, 0, 0], [0, 2, 1], [0, 1, 0]],
  3: [[1, 0, 0], [9, 2, 1], [1, 0, 0]],
  4: [[3, 1, 0], [9, 2, 0], [1, 2, 0]],
}
CONSIDERED = {
  1: [[1, 1, 1]] * 3,
  2: [[1, 1, 1]] * 3,
  3: [[1, 1, 0], [0, 1, 1], [1, 1, 0]],
  4: [[1, 1, 0], [0, 1, 1], [1, 1, 0]],
}
LABELS = jnp.zeros(3, jnp.int32)


def test_decisions():
  found = decide(outputs(SCORES, CONSIDERED), LABELS, 'reduction')
  assert found['predicted'].tolist() == [0, 1, 1] and found['dropped'].tolist() == [0, 3, 0]
  assert found['correct1'].tolist() == [True, False, True]
  assert found['correct3'].tolist() == [
    True,
    False,
    True,
  ]  # the best score of all is dropped, and does not count
  assert found['kept2'].tolist() == [True] * 3 and found['kept4'].tolist() == [True, False, True]
  assert 'kept1' not in found
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  np.testing.assert_allclose(found['confidence'], [sigmoid(2), sigmoid(2), sigmoid(1)], rtol=1e-6)
  np.testing.assert_allclose(found['true_probability'], [sigmoid(2), 0, sigmoid(-1)], rtol=1e-6)
  kinds = failures.decided_by({k: np.asarray(v) for k, v in found.items()}, 'reduction')
  assert kinds == {'images': 2, 'by_selection': 1, 'by_last_stage': 1}


def test_reranking_decides_between_all_classes():
  found = decide(outputs(SCORES, CONSIDERED), LABELS, 'rerank')
  assert found['predicted'].tolist() == [0, 0, 1] and found['dropped'].tolist() == [0, 3, 0]
  kinds = failures.decided_by({k: np.asarray(v) for k, v in found.items()}, 'rerank')
  assert kinds == {'images': 1, 'by_selection': 0, 'by_last_stage': 1}


def test_plain_networks_have_one_stage():
  found = decide(outputs({4: SCORES[4]}, {4: [[1, 1, 1]] * 3}), LABELS, 'reduction')
  assert set(found) == {'predicted', 'confidence', 'true_probability', 'correct4', 'dropped'}
  assert found['dropped'].tolist() == [0, 0, 0]
  stages = failures.by_stage({k: np.asarray(v) for k, v in found.items()})
  assert stages == {'accuracy': {4: pytest.approx(2 / 3)}, 'recall': {}}


def test_most_confident_mistakes():
  decided = {
    'label': np.array([0, 1, 2, 0, 1]),
    'predicted': np.array([1, 1, 0, 2, 0]),
    'confidence': np.array([0.5, 0.99, 0.9, 0.5, 0.7]),
  }
  assert failures.most_confident(decided, 10).tolist() == [2, 4, 0, 3]  # equal ones in order
  assert failures.most_confident(decided, 2).tolist() == [2, 4]


def test_confusions():
  labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
  predicted = np.array([1, 1, 2, 0, 0, 1, 0, 1])
  found = failures.confusions(labels, predicted, 3)
  assert [(p['true'], p['predicted'], p['images'], p['share']) for p in found] == [
    (0, 1, 2, 0.5),
    (0, 2, 1, 0.25),
    (1, 0, 1, 0.5),
  ]
  assert failures.confusions(labels, labels, 3) == []


def test_figures():
  table = {
    'predicted': ['$', 'a very long name of a class indeed'],
    'true': ['_', 'b'],
    'probability': [0.954, 0.6],
    'true_probability': [0.0, 0.3],
    'dropped_at_stage': [3, '-'],
  }
  figure = failure_figures.gallery(np.zeros((2, 8, 8, 3), np.uint8), table, 'a run')
  first, second = (axes.get_title() for axes in figure.axes)
  assert first == '\\$ (95 %)\nis _ (0 %)\ndropped before stage 3'
  assert second == 'a very long name of a… (60 %)\nis b (30 %)\nconsidered to the end'
  figure.canvas.draw()  # a dollar is no mathematics
  pairs = [
    {'true': 0, 'predicted': 1, 'images': 4, 'share': 0.5},
    {'true': 1, 'predicted': 0, 'images': 3, 'share': 1},
  ]
  (axes,) = failure_figures.confusion_bars(pairs, ['cat', 'dog'], 'a run').axes
  assert [bar.get_width() for bar in axes.patches] == [4, 3] and axes.get_xlabel() == 'test images'
  assert [text.get_text() for text in axes.get_yticklabels()] == ['cat  →  dog', 'dog  →  cat']
  assert axes.patches[0].get_y() > axes.patches[1].get_y()
  stages = {'accuracy': {1: 0.25, 2: 0.5}, 'recall': {2: 0.75}}
  (axes,) = failure_figures.stage_bars(stages, 'a run').axes
  assert [bar.get_height() for bar in axes.patches] == [25, 50, 75] and '%' in axes.get_ylabel()


def test_no_mistakes_are_said():
  columns = 'predicted', 'true', 'probability', 'true_probability', 'dropped_at_stage'
  empty = {name: [] for name in columns}
  gallery = failure_figures.gallery(np.zeros((0, 8, 8, 3), np.uint8), empty, 'a run')
  bars = failure_figures.confusion_bars([], ['cat'], 'a run')
  for figure in (gallery, bars):
    assert 'no mistakes' in [text.get_text() for text in figure.axes[0].texts]
    figure.canvas.draw()


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  config = tiny_config()
  config.failures.update(images=7, pairs=3, bins=5)
  workdir = make_run(config, tmp_path_factory.mktemp('failures') / 'run')
  return config, workdir, failures.failures(config, workdir)


def test_a_run(run):
  _, workdir, found = run
  folder = workdir / 'analysis'
  names = ('gallery', 'confusions', 'stages', 'calibration')
  assert set(found['files']) == {f'failures_{name}' for name in names}
  for path in found['files'].values():
    assert path.with_suffix('.png').exists() and path.with_suffix('.svg').exists()
  written = json.loads((folder / 'failures.json').read_text())
  assert written['images'] == 360 == sum(written['calibration']['images'])
  assert written['accuracy']['4'] == np.mean(found['predicted'] == found['label'])
  wrong = written['mistakes']
  assert wrong['images'] == wrong['by_selection'] + wrong['by_last_stage'] > 7
  rows = list(csv.DictReader((folder / 'failures.csv').read_text(encoding='utf-8').splitlines()))
  assert len(rows) == 7 and len(written['confusions']) == 3
  # What a selection dropped has no probability, and who was dropped early is not considered later.
  for row in rows:
    assert (row['dropped_at_stage'] == '-') == (float(row['true_probability']) > 0)
  confidences = [float(row['probability']) for row in rows]
  assert confidences == sorted(confidences, reverse=True)


def test_a_plain_run(tmp_path, capsys):
  config = tiny_config()
  config.model.name, config.model.class_counts = 'convnext_mini', ()
  config.failures.images = 2
  found = failures.failures(config, make_run(config, tmp_path / 'plain'))
  assert found['recall'] == {} and len(found['mistakes']) == 2
  assert 'by a selection' not in capsys.readouterr().out


@pytest.mark.parametrize('name', ['images', 'pairs', 'bins'])
def test_wrong_input(name, tmp_path):
  config = tiny_config()
  config.failures[name] = 0
  with pytest.raises(Halt, match=rf'failures\.{name} must be 1 or more, but is 0') as halted:
    failures.failures(config, tmp_path)
  assert halted.value.status == 2
