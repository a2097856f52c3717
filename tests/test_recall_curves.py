"""Recall of the true class against the numbers of classes, by both readings, and the counts it suggests."""

import json

import jax.numpy as jnp
import numpy as np
import pixel_family
import pytest
from run_files import make_run

from ctx_flax.analysis import figures, recall_curves
from ctx_flax.analysis.all_images import over_images
from ctx_flax.analysis.run import open_run
from ctx_flax.layers.best_classes import best_classes
from ctx_flax.layers.contextualizer import check_class_counts
from ctx_flax.training.halt import Halt

# Places of five classes for four images; stage 2 chooses by the first, 3 by the second, 4 by the third.
FIRST = [[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [4, 3, 0, 1, 2], [4, 3, 2, 0, 1]]
SECOND = [[1, 0, 2, 3, 4], [4, 3, 2, 1, 0], [1, 0, 2, 3, 4], [0, 1, 2, 3, 4]]
THIRD = [[0, 1, 2, 3, 4]] * 4
LABELS = np.array([0, 0, 2, 4])
RANKS = [np.array(r, np.uint16) for r in (FIRST, SECOND, THIRD)]


def test_recall_relative_to_all_classes():
  found = recall_curves.curves(RANKS, LABELS, target=0.75)
  # The label's places are 0, 1, 0, 1 by the first scores; 1, 4, 2, 4 by the second; 0, 0, 2, 4 by the third.
  np.testing.assert_allclose(found['recall']['all'][2], [0.5, 1, 1, 1, 1])
  np.testing.assert_allclose(found['recall']['all'][3], [0, 0.25, 0.5, 0.5, 1])
  np.testing.assert_allclose(found['recall']['all'][4], [0.5, 0.5, 0.75, 0.75, 1])
  # Two would do for stage 2, but stage 3 needs all five, and no stage may have fewer than a later one.
  assert found['counts']['all'] == (5, 5, 3)


def test_recall_relative_to_what_was_kept():
  found = recall_curves.curves(RANKS, LABELS, target=0.75)
  # N_2 = 2 keeps the classes {0, 1}, {0, 1}, {2, 3}, {3, 4}, every label among them. By the second scores the
  # label then is at place 1, 1, 0, 1 of two; N_3 = 2. By the third at 0, 0, 0, 1.
  np.testing.assert_allclose(found['recall']['kept'][2], [0.5, 1, 1, 1, 1])
  np.testing.assert_allclose(found['recall']['kept'][3], [0.25, 1])
  np.testing.assert_allclose(found['recall']['kept'][4], [0.75, 1])
  assert found['counts']['kept'] == (2, 2, 2)  # one would do for stage 4, but no network has it


def test_images_that_lost_their_class_do_not_count_later():
  """By places of three classes: N_2 = 2 drops the label of the last of three images."""
  first, second = np.array([[0, 1, 2], [1, 0, 2], [1, 2, 0]]), np.array([[0, 1, 2], [0, 1, 2], [0, 1, 2]])
  found = recall_curves.curves([first, second], np.array([0, 1, 1]), target=0.5)
  assert found['counts']['kept'] == (2, 2)
  np.testing.assert_allclose(found['recall']['kept'][3], [0.5, 1.0])


@pytest.mark.parametrize('classes, stages', [(2, 3), (3, 3), (5, 2), (12, 3)])
def test_what_is_suggested_is_always_accepted(classes, stages):
  rng = np.random.default_rng(classes)
  for target in (1e-9, 0.3, 0.9, 1.0):
    for images in (1, 7):
      ranks = [np.argsort(rng.random((images, classes)), 1).astype(np.uint16) for _ in range(stages)]
      found = recall_curves.curves(ranks, rng.integers(0, classes, images), target)
      for counts in found['counts'].values():
        assert len(counts) == stages
        check_class_counts(counts, classes)


def test_places_among_the_kept_are_those_of_the_layer():
  """Against the network's own selection, random scores, and ties, which go to the lower index."""
  rng = np.random.default_rng(0)
  scores = [rng.integers(0, 6, (50, 12)).astype(np.float32) for _ in range(3)]
  ranks = [np.argsort(np.argsort(-s, 1, kind='stable'), 1) for s in scores]
  considered = jnp.ones((50, 12), bool)
  for stage, count in ((2, 8), (3, 5), (4, 2)):
    places = recall_curves.nested_places(ranks[: stage - 1], (8, 5)[: stage - 2])
    considered = best_classes(jnp.where(considered, scores[stage - 2], -jnp.inf), count)
    np.testing.assert_array_equal(places < count, considered)


@pytest.mark.parametrize(
  'curve, target, count',
  [([0.5, 0.99, 1.0], 0.99, 2), ([1.0, 1.0], 0.99, 1), ([0.1, 0.2], 0.5, 2), ([0.3, 0.1 + 0.2], 0.3, 1)],
)
def test_smallest_count(curve, target, count):
  assert recall_curves.smallest(curve, target) == count


def test_recall_of_each_class():
  found = recall_curves.recall_per_class(RANKS, LABELS, (2, 1, 1))
  assert found['images'].tolist() == [2, 0, 1, 0, 1]
  np.testing.assert_allclose(found['stage2'], [1, np.nan, 1, np.nan, 1])
  np.testing.assert_allclose(found['stage3'], [0, np.nan, 1, np.nan, 0])
  np.testing.assert_allclose(found['stage4'], [0, np.nan, 1, np.nan, 0])
  assert recall_curves.slowest_first(found).tolist() == [0, 4, 2]
  # What an earlier stage has dropped stays out, also where a later one has room for all.
  lost = recall_curves.recall_per_class(RANKS, LABELS, (1, 5, 5))
  np.testing.assert_allclose(lost['stage4'], [0.5, np.nan, 1, np.nan, 0])
  # Reranking lets a class in again: by the third scores class 0 is the best.
  again = recall_curves.recall_per_class(RANKS, LABELS, (2, 1, 1), selection='rerank')
  np.testing.assert_allclose(again['stage4'], [1, np.nan, 0, np.nan, 0])


def test_many_images_are_taken_in_pieces(monkeypatch):
  whole = recall_curves.curves(RANKS, LABELS, 0.75), recall_curves.recall_per_class(RANKS, LABELS, (3, 2, 1))
  monkeypatch.setattr(recall_curves, 'CHUNK', 3)
  pieces = recall_curves.curves(RANKS, LABELS, 0.75), recall_curves.recall_per_class(RANKS, LABELS, (3, 2, 1))
  np.testing.assert_equal(whole, pieces)


def test_figure():
  found = recall_curves.curves(RANKS, LABELS, 0.75)
  figure = recall_curves.draw(found, 0.75, 'a run', naive=False)
  both = dict(zip(('all', 'kept'), figure.axes, strict=True))
  for reading, axes in both.items():
    assert axes.get_title() == recall_curves.READINGS[reading]
    assert axes.get_ylabel() == 'relative recall of the true class (%)' and 'N_i' in axes.get_xlabel()
    curves = [
      line for line in axes.lines if len(line.get_xdata()) > 1 and not line.get_label().startswith('_')
    ]
    assert len({(line.get_linestyle(), line.get_color()) for line in curves}) == 3
    for stage, count, line in zip((2, 3, 4), found['counts'][reading], curves, strict=True):
      np.testing.assert_allclose(line.get_ydata(), 100 * found['recall'][reading][stage])
      assert line.get_label() == f'stage {stage}: N = {count}'
    marks = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert [int(mark.get_xdata()[0]) for mark in marks] == list(found['counts'][reading])
  assert 'not naive' in figure.get_suptitle()


@pytest.fixture(scope='module', autouse=True)
def family():
  """What is looked at here hardly depends on the network: one that compiles in no time."""
  with pixel_family.known(), pytest.MonkeyPatch.context() as patch:
    patch.setattr(figures, 'DPI', 40)  # figures at full size take seconds
    yield


def naive_config():
  config = pixel_family.four_stages()
  config.model.class_counts = (10, 10, 10)
  return config


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return make_run(naive_config(), tmp_path_factory.mktemp('recall') / 'run')


def test_a_run(run, capsys):
  found = recall_curves.recall_curves(naive_config(), run)
  assert {path.name for path in (run / 'analysis').iterdir()} == {
    f'recall_curves.{kind}' for kind in ('json', 'csv', 'png', 'svg')
  }
  printed = capsys.readouterr().out
  for counts in found['counts'].values():
    assert f"--config.model.class_counts='{counts}'" in printed
  assert 'not naive' not in printed
  written = json.loads((run / 'analysis' / 'recall_curves.json').read_text())
  assert written['counts'] == {name: list(counts) for name, counts in found['counts'].items()}
  assert written['naive'] is True and len(written['recall']['all']['2']) == 10
  table = (run / 'analysis' / 'recall_curves.csv').read_text().splitlines()
  assert table[0] == 'class,images,stage2,stage3,stage4' and len(table) == 11
  # All test images; and what was measured is the network: with one class, recall is a stage's accuracy.
  assert found['per_class']['images'].sum() == 360
  opened = open_run(naive_config(), run)
  decided = over_images(opened, lambda out, _: {'best1': out['scores1'].argmax(-1)}, 'stage 1')
  assert found['recall']['all'][2][0] == (decided['best1'] == decided['label']).mean()


@pytest.mark.parametrize(
  'path, value, message',
  [
    ('recall.target', 1.5, r'recall\.target is 1\.5: it must be above 0'),
    ('recall.relative_to', 'some', "recall.relative_to is 'some': it must be one of all, kept"),
    ('model.name', 'four_pixels', 'considers all classes to the end'),
  ],
)
def test_wrong_input(path, value, message, tmp_path):
  config = naive_config()
  group, _, name = path.partition('.')
  config[group][name] = value
  if name == 'name':
    make_run(config, tmp_path)
  with pytest.raises(Halt, match=message) as halted:
    recall_curves.recall_curves(config, tmp_path)
  assert halted.value.status == 2
