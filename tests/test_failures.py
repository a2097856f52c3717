"""Failures: decisions on hand-made scores, tables with known answers, and a run from end to end."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pixel_family
import pytest
from run_files import make_run
from steps import deciding

from ctx_flax.analysis import failures, figures
from ctx_flax.analysis.run import open_run
from ctx_flax.analysis.stage_decisions import decide
from ctx_flax.training.halt import Halt


def outputs(scores, considered, selection='reduction'):
  """`out` of a network: {stage: (b, n)} twice."""
  out = {f'scores{s}': jnp.array(v, jnp.float32) for s, v in scores.items()}
  out |= {f'considered{s}': jnp.array(v, bool) for s, v in considered.items()}
  return deciding(out, selection)


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
  found = decide(outputs(SCORES, CONSIDERED), LABELS)
  assert found['predicted'].tolist() == [0, 1, 1] and found['dropped'].tolist() == [0, 3, 0]
  # The best score of image 1 at stage 3 is that of a dropped class, and does not count.
  assert [found[f'predicted{s}'].tolist() for s in (1, 2, 3)] == [[0, 1, 0], [0, 1, 1], [0, 1, 0]]
  assert found['confidence'].dtype == found['true_probability'].dtype == jnp.float32
  assert found['correct1'].tolist() == [True, False, True]
  assert found['correct3'].tolist() == [True, False, True]
  assert found['kept2'].tolist() == [True] * 3 and found['kept4'].tolist() == [True, False, True]
  assert 'kept1' not in found
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  np.testing.assert_allclose(found['confidence'], [sigmoid(2), sigmoid(2), sigmoid(1)], rtol=1e-6)
  np.testing.assert_allclose(found['true_probability'], [sigmoid(2), 0, sigmoid(-1)], rtol=1e-6)
  kinds = failures.decided_by({k: np.asarray(v) for k, v in found.items()})
  assert kinds == {'images': 2, 'by_selection': 1, 'by_last_stage': 1}


def test_reranking_decides_between_all_classes():
  found = decide(outputs(SCORES, CONSIDERED, 'rerank'), LABELS)
  assert found['predicted'].tolist() == [0, 0, 1] and found['dropped'].tolist() == [0, 3, 0]
  kinds = failures.decided_by({k: np.asarray(v) for k, v in found.items()})
  assert kinds == {'images': 1, 'by_selection': 0, 'by_last_stage': 1}


def test_plain_networks_have_one_stage():
  found = decide(outputs({4: SCORES[4]}, {4: [[1, 1, 1]] * 3}), LABELS)
  names = 'predicted4', 'predicted', 'confidence', 'true_probability', 'correct4', 'dropped'
  assert set(found) == {*names, 'correct', 'decidable'}
  assert found['dropped'].tolist() == [0, 0, 0]
  stages = failures.by_stage({k: np.asarray(v) for k, v in found.items()})
  assert stages == {'accuracy': {4: pytest.approx(2 / 3)}, 'recall': {}}


def test_two_classes_and_a_tie():
  scores = {s: [[1, 1], [2, 1]] for s in (1, 2, 3, 4)}
  considered = {s: [[1, 1], [1, 0]] if s == 4 else [[1, 1], [1, 1]] for s in (1, 2, 3, 4)}
  found = decide(outputs(scores, considered), jnp.array([1, 1]))
  assert found['predicted'].tolist() == [0, 0] and found['dropped'].tolist() == [0, 4]
  assert found['confidence'].tolist() == [0.5, 1] and found['true_probability'].tolist() == [0.5, 0]
  pairs = failures.confusions(np.array([1, 1]), np.asarray(found['predicted']), 5)  # 1 is never predicted
  assert pairs == [{'true': 1, 'predicted': 0, 'images': 2, 'share': 1.0}]


def test_a_class_is_considered_again_under_rerank():
  scores = {s: [[1, 0]] for s in (1, 2, 3, 4)}
  considered = {1: [[1, 1]], 2: [[0, 1]], 3: [[1, 1]], 4: [[0, 1]]}
  found = decide(outputs(scores, considered, 'rerank'), jnp.array([0]))
  assert found['dropped'].tolist() == [2] and found['correct4'].tolist() == [True]  # the first, and yet right
  assert [found[f'kept{s}'].tolist() for s in (2, 3, 4)] == [[False], [True], [False]]


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


@pytest.fixture(scope='module', autouse=True)
def family():
  """What is looked at here hardly depends on the network: one that compiles in no time."""
  with pixel_family.known(), pytest.MonkeyPatch.context() as patch:
    patch.setattr(figures, 'DPI', 40)  # figures at full size take seconds
    yield


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  config = pixel_family.four_stages()
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
  assert len({row['dropped_at_stage'] for row in rows}) > 1
  for row in rows:
    assert (row['dropped_at_stage'] == '-') == (float(row['true_probability']) > 0)
  confidences = [float(row['probability']) for row in rows]
  assert confidences == sorted(confidences, reverse=True)


def test_a_run_without_mistakes(run, monkeypatch, capsys):
  config, workdir, found = run
  perfect = {name: found[name] for name in ('label', 'index', 'confidence', 'true_probability')}
  perfect |= {f'kept{s}': np.ones(360, bool) for s in (2, 3, 4)}
  perfect |= {f'correct{s}': np.ones(360, bool) for s in (1, 2, 3, 4)}
  perfect |= {'predicted': found['label'], 'dropped': np.zeros(360, int)}
  perfect |= dict.fromkeys(('correct', 'decidable'), np.ones(360, bool))
  monkeypatch.setattr(failures, 'decisions', lambda run: perfect)
  again = failures.write(open_run(config, workdir))
  assert len(again['mistakes']) == 0 and again['confusions'] == []
  assert '0 of 360 images wrong: accuracy 100.00 %' in capsys.readouterr().out
  folder = workdir / 'analysis'
  header = 'index,image,true,true_probability,predicted,probability,dropped_at_stage\n'
  assert (folder / 'failures.csv').read_text() == header
  assert 'no mistakes' in (folder / 'failures_gallery.svg').read_text(encoding='utf-8')


def test_what_is_printed_fits_a_terminal(monkeypatch, run, capsys):
  config, workdir, found = run
  options = config.copy_and_resolve_references()
  options.failures.images = 12
  opened = open_run(options, workdir)
  monkeypatch.setenv('COLUMNS', '80')
  table = failures.mistake_table(opened, found, failures.most_confident(found, 12))
  table['image'] = [f'validation/n01440764/ILSVRC2012_val_{i:08}.JPEG' for i in range(12)]
  table['true'] = ['[bold]tench, Tinca tinca, a fish of still waters'] * 12
  numbers = json.loads((workdir / 'analysis' / 'failures.json').read_text())
  numbers |= {'mistakes': {'images': 300, 'by_selection': 100, 'by_last_stage': 200, 'most_confident': table}}
  numbers |= {'accuracy': {1: 0.1, 4: 0.2}, 'recall': {2: 0.9, 3: 0.9}}
  pair = {'true': 'tench', 'predicted': 'a bird of prey', 'images': 7, 'share': 0.25}
  failures._print(opened, numbers | {'confusions': [pair]})
  out = capsys.readouterr().out
  assert max(map(len, out.splitlines())) <= 80
  assert '[bold]' in out and out.count('│ …') == 10  # of twelve; the ends of the names
  assert '100 decided by the drop of the true class, 200 by the last stage' in out
  assert [cell.strip() for cell in next(line for line in out.splitlines() if 'prey' in line).split('│')][
    1:5
  ] == [
    'tench',
    'a bird of prey',
    '7',
    '25.0',
  ]


def test_a_plain_run(tmp_path, capsys):
  config = pixel_family.make_plain(pixel_family.four_stages())
  config.failures.images = 2
  found = failures.failures(config, make_run(config, tmp_path / 'plain'))
  assert found['recall'] == {} and len(found['mistakes']) == 2
  out = capsys.readouterr().out
  assert 'images wrong' in out and 'the drop' not in out


@pytest.mark.parametrize('name', ['images', 'pairs', 'bins'])
def test_wrong_input(name, tmp_path):
  config = pixel_family.four_stages()
  config.failures[name] = 0
  with pytest.raises(Halt, match=rf'failures\.{name} must be 1 or more, but is 0') as halted:
    failures.failures(config, tmp_path)
  assert halted.value.status == 2
