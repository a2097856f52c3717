"""Losses of the stages: against a slow reference, by hand, and where labels were lost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_losses as reference
from steps import ALPHA, combine, stage_losses, total_loss

from ctx_flax.layers.contextualizer import SELECTIONS


def random_out(rng, b, n, kept, nested=True):
  """Scores and considered classes of four stages, as a model returns them."""
  out, considered = {}, np.ones((b, n), bool)
  for stage, count in enumerate((n, *kept), start=1):
    keys = rng.random((b, n)) + (considered if nested else 0)
    considered = np.argsort(np.argsort(-keys, -1), -1) < count
    out[f'scores{stage}'] = (3 * rng.normal(size=(b, n))).astype(np.float32)
    out[f'considered{stage}'] = considered
  return out


@pytest.mark.parametrize('selection', SELECTIONS)
@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_soft_targets_equal_the_reference(selection, smoothing):
  rng = np.random.default_rng(0)
  compute = jax.jit(
    lambda out, labels, other, lam, weights: stage_losses(
      out,
      labels,
      selection=selection,
      label_smoothing=smoothing,
      other_labels=other,
      lam=lam,
      weights=weights,
    )
  )
  seen = dict.fromkeys(['a dropped', 'b dropped', 'both alive', 'a = b', 'lam < 0.5', 'filling row'], 0)
  for _ in range(20):
    out = random_out(rng, 16, 12, (8, 6, 5), nested=selection == 'reduction')
    labels, other = rng.integers(0, 12, (2, 16))
    other[:2] = labels[:2]
    lam = rng.random(16).astype(np.float32)
    weights = (rng.random(16) < 0.9).astype(np.float32)
    got = compute(out, labels, other, lam, weights)
    for stage in (1, 2, 3, 4):
      considered = np.asarray(out[f'considered{stage}'])
      expected = reference.stage_loss(
        out[f'scores{stage}'], considered, labels, selection, smoothing, other, lam, weights
      )
      np.testing.assert_allclose(got[stage], expected, rtol=1e-5, atol=1e-6)
      rows = np.arange(16)
      a, b = np.where(lam < 0.5, [other, labels], [labels, other])
      a_alive, b_alive = considered[rows, a], considered[rows, b]
      seen['a dropped'] += (~a_alive).sum()
      seen['b dropped'] += (a_alive & ~b_alive).sum()
      seen['both alive'] += (a_alive & b_alive).sum()
    seen['a = b'] += (labels == other).sum()
    seen['lam < 0.5'] += (lam < 0.5).sum()
    seen['filling row'] += (weights == 0).sum()
  assert min(seen.values()) > 10, seen


@pytest.mark.parametrize('selection', SELECTIONS)
def test_gradients_are_probabilities_minus_targets(selection):
  rng = np.random.default_rng(7)
  b, n = 16, 12
  out = random_out(rng, b, n, (8, 6, 5), nested=selection == 'reduction')
  labels, other = rng.integers(0, n, (2, b))
  lam = rng.uniform(0.5, 1, b).astype(np.float32)
  options = {'selection': selection, 'label_smoothing': 0.1, 'other_labels': other, 'lam': lam}
  considered = {key: value for key, value in out.items() if key.startswith('considered')}
  scores = {key: value for key, value in out.items() if key.startswith('scores')}
  gradients = jax.jit(jax.grad(lambda x: total_loss(x | considered, labels, **options)))(scores)
  for stage in (1, 2, 3, 4):
    expected, count = np.zeros((b, n)), 0
    for i in range(b):
      classes = [c for c in range(n) if selection == 'rerank' or considered[f'considered{stage}'][i, c]]
      wanted = reference.target(classes, labels[i], other[i], lam[i], 0.1)
      if wanted is None:
        continue
      count += 1
      found = reference.log_softmax(np.asarray(scores[f'scores{stage}'][i], np.float64), classes)
      for c in classes:
        expected[i, c] = np.exp(found[c]) - wanted[c]
    expected *= (ALPHA if stage < 4 else 1) / count
    np.testing.assert_allclose(gradients[f'scores{stage}'], expected, atol=1e-6)


def test_soft_targets_by_hand():
  """Four classes, two of them considered, with probabilities 3/4 and 1/4."""
  scores = np.tile(np.array([np.log(3), 0, 0, 0], np.float32), (4, 1))
  out = {'scores4': scores, 'considered4': np.array([[True, True, False, False]] * 4)}
  high, low = -np.log(0.75), -np.log(0.25)
  got = jax.jit(
    lambda labels, other, lam: stage_losses(
      out, labels, selection='reduction', label_smoothing=0.2, other_labels=other, lam=lam
    )[4]
  )
  cases = {  # (label, other, lam): targets of classes 0 and 1, or none
    (0, 1, 0.7): (0.1 + 0.8 * 0.7, 0.1 + 0.8 * 0.3),
    (1, 0, 0.3): (0.1 + 0.8 * 0.7, 0.1 + 0.8 * 0.3),  # the same image told the other way round
    (0, 2, 0.7): (0.1 + 0.8, 0.1),  # the lighter label was dropped: the heavier takes its part
    (0, 0, 0.7): (0.1 + 0.8, 0.1),
    (2, 0, 0.7): None,  # the heavier label was dropped
    (0, 2, 0.3): None,
  }
  for (label, other, lam), wanted in cases.items():
    total, count = jax.device_get(got(np.full(4, label), np.full(4, other), np.full(4, lam, np.float32)))
    if wanted is None:
      assert (total, count) == (0, 0)
    else:
      assert count == 4
      np.testing.assert_allclose(total / 4, wanted[0] * high + wanted[1] * low, rtol=1e-6)


def test_lost_labels_give_zero_and_no_nan():
  """Finite values and gradients where a whole batch lost its label, also with -inf as dead scores."""
  out = random_out(np.random.default_rng(1), 8, 12, (8, 6, 5))
  for stage in (2, 3, 4):
    out[f'considered{stage}'][:, 3] = False
    out[f'scores{stage}'][~out[f'considered{stage}']] = -np.inf
  options = {'selection': 'reduction', 'label_smoothing': 0.1}

  @jax.jit
  def run(scores):
    loss = lambda scores: total_loss(out | scores, np.full(8, 3), alpha=0.15, **options)
    return *jax.value_and_grad(loss)(scores), stage_losses(out | scores, np.full(8, 3), **options)[1]

  scores = {key: value for key, value in out.items() if key.startswith('scores')}
  value, gradients, (first, count) = jax.device_get(run(scores))
  assert count == 8
  np.testing.assert_allclose(value, 0.15 * first / 8, rtol=1e-6)
  assert np.abs(gradients['scores1']).max() > 0
  for stage in (2, 3, 4):
    assert not np.any(gradients[f'scores{stage}']), (
      f'stage {stage}: a gradient, or NaN, where no image counts'
    )


def test_what_dead_classes_score_changes_nothing():
  """Labels that are alive beside dead scores of -inf: 0 * -inf must be nowhere."""
  out = random_out(np.random.default_rng(8), 8, 12, (8, 6, 5))
  labels = np.argmax(out['considered4'], -1)
  dead = {
    f'scores{s}': np.where(out[f'considered{s}'], out[f'scores{s}'], np.float32(-np.inf)) for s in (2, 3, 4)
  }
  options = {'selection': 'reduction', 'label_smoothing': 0.1}
  run = jax.jit(jax.value_and_grad(lambda x: total_loss(out | x, labels, **options)))
  jax.tree.map(np.testing.assert_array_equal, run(dead), run({k: out[k] for k in dead}))


def test_dead_classes_get_no_gradient():
  out = random_out(np.random.default_rng(2), 8, 12, (8, 6, 5))
  labels = np.argmax(out['considered4'], -1)  # alive at every stage
  loss = lambda x: total_loss(out | {'scores3': x}, labels, selection='reduction', label_smoothing=0.1)
  gradient = np.asarray(jax.jit(jax.grad(loss))(out['scores3']))
  dead = ~out['considered3']
  assert not gradient[dead].any()
  assert np.abs(gradient[~dead]).min() > 0


def test_filling_rows_do_not_count_even_when_not_finite():
  out = random_out(np.random.default_rng(3), 8, 12, (8, 6, 5))
  labels = np.arange(8)
  run = jax.jit(functools.partial(stage_losses, selection='reduction'))
  short = run({k: v[:5] for k, v in out.items()}, labels[:5])
  for stage in (1, 2, 3, 4):
    out[f'scores{stage}'][5:] = np.nan
  padded = run(out, labels, weights=np.array([1] * 5 + [0] * 3, np.float32))
  for stage in (1, 2, 3, 4):
    np.testing.assert_allclose(padded[stage], short[stage], rtol=1e-6)


def test_float32_whatever_the_scores():
  out = random_out(np.random.default_rng(4), 8, 12, (8, 6, 5))
  half = {k: v.astype(jnp.bfloat16) if k.startswith('scores') else v for k, v in out.items()}
  wide = {k: v.astype(np.float32) if k.startswith('scores') else v for k, v in half.items()}
  run = jax.jit(functools.partial(stage_losses, selection='reduction'))
  got, expected = run(half, np.arange(8)), run(wide, np.arange(8))
  for stage in (1, 2, 3, 4):
    assert got[stage][0].dtype == got[stage][1].dtype == jnp.float32
    assert tuple(map(float, got[stage])) == tuple(map(float, expected[stage]))


def test_plain_models_have_one_stage():
  scores = np.random.default_rng(5).normal(size=(8, 12)).astype(np.float32)
  out = {'scores4': scores, 'logits4': scores, 'considered4': np.ones((8, 12), bool)}
  expected = np.mean(np.log(np.sum(np.exp(scores, dtype=np.float64), -1)) - np.diagonal(scores))
  for selection in SELECTIONS:
    run = jax.jit(
      lambda out, s=selection: [f(out, np.arange(8), selection=s) for f in (stage_losses, total_loss)]
    )
    parts, total = run(out)
    assert list(parts) == [4]
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_combine_by_hand():
  sums = {1: 6.0, 2: 4.0, 3: 0.0, 4: 10.0}
  counts = {1: jnp.array(3.0), 2: jnp.array(2.0), 3: jnp.array(0.0), 4: jnp.array(4.0)}
  np.testing.assert_allclose(combine(sums, counts, 0.5), 0.5 * (2 + 2 + 0) + 2.5)
  assert combine({4: 6.0}, {4: jnp.array(3.0)}, 0.5) == 2


def test_bad_input_is_named():
  out = random_out(np.random.default_rng(6), 4, 12, (8, 6, 5))
  labels = jnp.arange(4)
  with pytest.raises(ValueError, match=r'label_smoothing must be .* but is 1\.5'):
    stage_losses(out, labels, selection='rerank', label_smoothing=1.5)
  with pytest.raises(ValueError, match='only lam is given'):
    stage_losses(out, labels, selection='rerank', lam=jnp.ones(4))
