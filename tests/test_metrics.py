"""Accuracies and recalls: against a slow reference and hand values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_losses as reference
from steps import deciding, summarise

from ctx_flax.layers.contextualizer import SELECTIONS
from ctx_flax.tasks.classification import losses, metrics
from ctx_flax.training import terms


def chain(rng, b, n, kept):
  out, considered = {}, np.ones((b, n), bool)
  for stage, count in enumerate((n, *kept), start=1):
    keys = rng.random((b, n)) + considered
    considered = np.argsort(np.argsort(-keys, -1), -1) < count
    # Rounded, so that there are ties.
    out[f'scores{stage}'] = np.round(2 * rng.normal(size=(b, n))).astype(np.float32)
    out[f'considered{stage}'] = considered
  return out


@functools.partial(jax.jit, static_argnames='selection')
def measured(out, labels, weights, selection):
  return metrics.stage_metrics(deciding(out, selection), labels, weights)


@pytest.mark.parametrize('selection', SELECTIONS)
def test_equal_to_the_reference(selection):
  rng = np.random.default_rng(0)
  out = chain(rng, 200, 12, (8, 6, 4))
  labels = rng.integers(0, 12, 200)
  weights = (rng.random(200) < 0.9).astype(np.float32)
  got = jax.device_get(measured(out, labels, weights, selection))
  assert set(got) == {f'accuracy{s}' for s in (1, 2, 3, 4)} | {f'recall{s}' for s in (2, 3, 4)} | {
    'accuracy',
    'top5',
  }
  for stage in (1, 2, 3, 4):
    considered = out[f'considered{stage}']
    right = top5 = recall = 0
    for i in np.flatnonzero(weights):
      classes = [n for n in range(12) if selection == 'rerank' or considered[i, n]]
      place = reference.place_of_label(out[f'scores{stage}'][i], classes, labels[i])
      right += place == 0
      top5 += place is not None and place < 5
      recall += considered[i, labels[i]]
    assert tuple(map(float, got[f'accuracy{stage}'])) == (right, weights.sum())
    if stage > 1:
      assert tuple(map(float, got[f'recall{stage}'])) == (recall, weights.sum())
    if stage == 4:
      assert tuple(map(float, got['top5'])) == (top5, weights.sum())
      assert tuple(map(float, got['accuracy'])) == (right, weights.sum())


def test_accuracy_is_that_of_argmax():
  out = chain(np.random.default_rng(1), 200, 12, (8, 6, 4))
  got_all = measured(out, np.zeros(200, int), np.ones(200, np.float32), 'reduction')
  for stage in (1, 2, 3, 4):
    logits = np.where(out[f'considered{stage}'], out[f'scores{stage}'], -np.inf)
    got, _ = got_all[f'accuracy{stage}']
    assert got == (logits.argmax(-1) == 0).sum()


def test_dropped_labels_are_wrong_and_not_in_the_top_five():
  out = {
    'scores1': np.zeros((1, 6), np.float32),
    'considered1': np.ones((1, 6), bool),
    'scores4': np.array([[9, 1, 2, 3, 4, 5]], np.float32),
    'considered4': np.array([[False, False, False, True, True, True]]),
  }
  dropped = measured(out, np.array([0]), np.ones(1, np.float32), 'reduction')
  assert [float(dropped[k][0]) for k in ('accuracy', 'top5', 'recall4')] == [0, 0, 0]
  assert [float(dropped[k][1]) for k in ('accuracy', 'top5', 'recall4')] == [1, 1, 1]
  # Under 'rerank' all classes are scored: right, although its embedding was not merged.
  reranked = measured(out, np.array([0]), np.ones(1, np.float32), 'rerank')
  assert [float(reranked[k][0]) for k in ('accuracy', 'top5', 'recall4')] == [1, 1, 0]


def test_top_five_of_four_classes_lacks_a_dropped_one():
  considered = np.tile([True, True, True, False], (4, 1))
  out = {'scores4': np.zeros((4, 4), np.float32), 'considered4': considered}
  got = measured(out, np.arange(4), np.ones(4, np.float32), 'reduction')
  assert tuple(map(float, got['top5'])) == (3, 4)


def test_scores_that_are_not_numbers_are_wrong():
  out = {'scores4': np.full((3, 6), np.nan, np.float32), 'considered4': np.ones((3, 6), bool)}
  got = measured(out, np.array([0, 1, 5]), np.ones(3, np.float32), 'rerank')
  assert float(got['accuracy'][0]) == 0
  assert float(got['top5'][0]) == 0


def test_plain_models_have_no_recall():
  out = {'scores4': np.eye(4, 6, dtype=np.float32), 'considered4': np.ones((4, 6), bool)}
  got = measured(out, np.arange(4), np.ones(4, np.float32), 'rerank')
  assert set(got) == {'accuracy', 'accuracy4', 'top5'}
  assert tuple(map(float, got['accuracy'])) == (4, 4)


def test_sums_of_uneven_batches_are_exact():
  rng = np.random.default_rng(2)
  out = chain(rng, 30, 12, (8, 6, 4))
  labels = rng.integers(0, 12, 30)

  @jax.jit
  def sums(part, labels):
    part = deciding(part, 'reduction')
    named = losses.stage_losses(part, labels)
    ones = jnp.ones(labels.shape, jnp.float32)
    return {f'loss{s}': v for s, v in named.items()} | metrics.stage_metrics(part, labels, ones)

  def measure(rows):
    return jax.device_get(sums({key: value[rows] for key, value in out.items()}, labels[rows]))

  total = {}
  for rows in (slice(0, 12), slice(12, 24), slice(24, 30)):
    total = terms.add(total, measure(rows))
  whole = summarise(measure(slice(0, 30)), alpha=0.15)
  assert whole.keys() == summarise(total, alpha=0.15).keys()
  for name, value in summarise(total, alpha=0.15).items():
    assert isinstance(value, float)
    np.testing.assert_allclose(value, whole[name], rtol=1e-6, err_msg=name)


def test_summarise_by_hand():
  sums = {
    'loss1': (6.0, 3.0),
    'loss2': (4.0, 2.0),
    'loss3': (0.0, 0.0),
    'loss4': (10.0, 4.0),
    'accuracy': (3.0, 4.0),
  }
  values = summarise(jax.tree.map(np.float32, sums), alpha=0.5)
  assert values == {'loss1': 2, 'loss2': 2, 'loss3': 0, 'loss4': 2.5, 'accuracy': 0.75, 'loss': 4.5}
