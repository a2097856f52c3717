"""Scores, which classes are kept, and the context they are merged into."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from initial_values import drawn, moved

from ctx_flax.layers import BatchNorm, Contextualizer
from ctx_flax.layers.best_classes import best_classes
from ctx_flax.layers.contextualizer import default_class_counts

KEY = jax.random.key(0)


def normal(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


TRACED_COUNT = {path: jax.jit(functools.partial(best_classes, path=path)) for path in (None, 'bits', 'sort')}


@pytest.mark.parametrize(
  'keep', [best_classes, *TRACED_COUNT.values()], ids=['given', *map(str, TRACED_COUNT)]
)
@pytest.mark.parametrize('count', [1, 3, 7, 8])
def test_best_classes_keeps_exactly_count_ties_by_index(count, keep):
  scores = np.asarray(
    [[3, 1, 2, 0, 7, 5, 4, 6], [1, 1, 1, 1, 1, 1, 1, 1], [0, 2, 2, 1, 2, 1, 1, 2]], np.float32
  )
  scores = np.concatenate([scores, normal(1, 3, 8)])
  kept = np.asarray(keep(jnp.asarray(scores), count))
  for row, mask in zip(scores, kept, strict=True):
    assert set(np.flatnonzero(mask)) == set(np.argsort(-row, kind='stable')[:count])
  # One program for all counts of a shape.
  assert all(program._cache_size() <= 2 for program in TRACED_COUNT.values())


@pytest.mark.parametrize('path', ['bits', 'sort'])
def test_best_classes_of_many_with_the_extremes_of_float32(path):
  """Against sorting; zeros of both signs tie."""
  scores = normal(3, 4, 2000).round(1)
  scores[:, :6] = np.inf, -np.inf, 3e38, -3e38, 2e-38, -2e-38
  scores[1, 100:] = np.where(np.arange(1900) % 2, 0.0, -0.0)
  for count in (1, 2, 150, 1000, 1999, 2000):
    kept = np.asarray(TRACED_COUNT[path](jnp.asarray(scores), count))
    expected = np.argsort(-scores, axis=-1, kind='stable')[:, :count]
    for row, mask in zip(expected, kept, strict=True):
      np.testing.assert_array_equal(np.flatnonzero(mask), np.sort(row))


def test_best_classes_among_dropped_ones():
  scores = np.asarray([[1, -np.inf, 3, -np.inf, 2]], np.float32)
  np.testing.assert_array_equal(TRACED_COUNT[None](scores, 3), [[True, False, True, False, True]])


@pytest.mark.parametrize(
  'num_classes, counts',
  [
    (1000, (500, 200, 50)),
    (400, (200, 80, 20)),
    (20, (10, 5, 5)),
    (10, (5, 5, 5)),
    (3, (3, 3, 3)),
    (2, (2, 2, 2)),
  ],
)
def test_default_class_counts(num_classes, counts):
  assert default_class_counts(num_classes) == counts


def contextualizer(**keywords):
  arguments = {
    'num_classes': 12,
    'class_counts': (8, 5, 3),
    'head_dims': (6, 7, 8, 9),
    'context_dims': (6, 7, 8),
    'embed_dim': 16,
  }
  return Contextualizer(**{**arguments, **keywords})


FEATURES = [normal(stage, 4, 3, 3, 6 + stage) for stage in range(4)]


def initial(module, scale=0.0):
  """Variables like initial ones, but of NumPy, with normal numbers of this scale added to them."""
  return moved(drawn(module, jax.eval_shape(module.init, KEY, FEATURES)), scale)


def stages(module, features):
  considered, out = jnp.ones((4, 12), bool), []
  for stage, x in enumerate(features, 1):
    scores = module.score(x, stage)
    out.append((scores, considered))
    if stage < 4:
      considered = module.select(scores, considered, stage)
  return out


@pytest.mark.parametrize('selection', ['reduction', 'rerank'])
def test_selection(selection):
  module = contextualizer(selection=selection)
  variables = initial(module, 0.5)
  out = jax.jit(lambda variables, features: module.apply(variables, features, method=stages))(
    variables, FEATURES
  )
  nested = True
  for (scores, before), (_, after), count in zip(out, out[1:], (8, 5, 3), strict=False):
    for row, alive, kept in zip(np.asarray(scores), np.asarray(before), np.asarray(after), strict=True):
      allowed = np.where(alive, row, -np.inf) if selection == 'reduction' else row
      assert set(np.flatnonzero(kept)) == set(np.argsort(-allowed, kind='stable')[:count])
      nested &= bool(np.all(alive[kept]))
  assert nested == (selection == 'reduction')


def test_scores_are_scaled_cosines():
  module = contextualizer()
  variables = initial(module)
  run = lambda m, x: (m.score(x, 1), m.heads[0](x.mean((1, 2))))
  scores, u = jax.jit(functools.partial(module.apply, method=run))(variables, FEATURES[0])
  u, e = np.asarray(u, np.float64), np.asarray(variables['params']['class_embedding'], np.float64)
  cosine = (u @ e.T) / np.linalg.norm(u, axis=1, keepdims=True) / np.linalg.norm(e, axis=1)
  np.testing.assert_allclose(scores, cosine / 0.07, rtol=1e-4)


def test_merger_is_the_mean_over_considered_classes():
  module = contextualizer()
  params = initial(module, 0.3)['params']
  considered = normal(7, 4, 12) > 0
  context = jax.jit(lambda considered: module.apply({'params': params}, considered, 3, method='context'))(
    considered
  )
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), params['merger3'])

  def norm(x, p):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * p['scale'] + p['bias']

  for mask, ours in zip(considered, context, strict=True):
    inner = []
    for row in np.asarray(params['class_embedding'], np.float64)[mask]:
      inner.append(np.maximum(norm(row @ p['inner']['kernel'] + p['inner']['bias'], p['inner_norm']), 0))
    merged = np.mean(inner, 0) @ p['outer']['kernel'] + p['outer']['bias']
    np.testing.assert_allclose(ours, np.maximum(norm(merged, p['outer_norm']), 0), atol=2e-5)


def test_zero_embeddings_have_finite_gradients():
  module = contextualizer()
  params = initial(module)['params']
  params['class_embedding'] = params['class_embedding'] * (np.arange(12) != 3)[:, None].astype(np.float32)
  params['head1']['out'] = jax.tree.map(np.zeros_like, params['head1']['out'])
  loss = lambda p: jnp.sum(module.apply({'params': p}, FEATURES[0], 1, method='score') ** 2)
  assert all(
    np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(jax.device_get(jax.jit(jax.grad(loss))(params)))
  )


def test_no_gradient_passes_the_selection():
  module = contextualizer()
  params = initial(module)['params']

  def context(params):
    def run(m, x):
      considered = jnp.ones((4, 12), bool)
      return m.context(m.select(m.score(x, 1), considered, 1), 2)

    return jnp.sum(module.apply({'params': params}, FEATURES[0], method=run) ** 2)

  gradients = jax.device_get(jax.jit(jax.grad(context))(params))
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients['head1']))
  assert np.any(gradients['class_embedding'])


@pytest.mark.parametrize('counts', [(8, 9, 3), (13, 5, 3), (8, 5, 1)])
def test_class_counts_that_do_not_fit(counts):
  with pytest.raises(ValueError, match=r'class_counts=\(\d+, \d+, \d+\): expected 12 \(num_classes\) >= N_2'):
    contextualizer(class_counts=counts).init(KEY, FEATURES)


def test_other_contextualizer_errors():
  with pytest.raises(ValueError, match="selection='rank': expected one of"):
    contextualizer(selection='rank').init(KEY, FEATURES)
  with pytest.raises(ValueError, match='expected one head per stage'):
    contextualizer(context_dims=(6, 7)).init(KEY, FEATURES)


def test_batch_norm_heads_for_resnet():
  module = contextualizer(norm=functools.partial(BatchNorm, axis_name=None), linear_init='uniform')
  shapes = jax.eval_shape(module.init, KEY, FEATURES)
  assert set(shapes['batch_stats']) == {'head1', 'head2', 'head3', 'head4'}
  # What else is drawn is not compiled.
  proj = jax.device_get(
    jax.jit(lambda *inputs: module.init(*inputs)['params']['head1']['proj'])(KEY, FEATURES)
  )
  bound = 6**-0.5
  assert bound * 0.8 < np.abs(proj['kernel']).max() <= bound
  assert 0 < np.abs(proj['bias']).max() <= bound


def test_contrast_merges_what_sets_the_considered_classes_apart():
  n, counts = 12, (6, 3)
  layers = [
    Contextualizer(n, counts, (8, 8, 8), (6, 4), 16, merge_contrast=contrast) for contrast in (False, True)
  ]
  features = [jnp.zeros((1, 8))] * 3
  variables = moved(drawn(layers[0], jax.eval_shape(layers[0].init, KEY, features)), 0.1)
  considered = np.zeros((3, n), bool)
  considered[0, :6] = considered[1, 6:] = considered[2] = True
  plain, contrast = (
    np.asarray(
      jax.jit(lambda v, c, layer=layer: layer.apply(v, c, 2, method='context'))(variables, considered)
    )
    for layer in layers
  )
  merger = variables['params']['merger2']
  table = np.asarray(layers[0].apply(variables, method='tables')['context2'])

  def outer(x):
    x = x @ np.asarray(merger['outer']['kernel']) + np.asarray(merger['outer']['bias'])
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return np.maximum(
      x * np.asarray(merger['outer_norm']['scale']) + np.asarray(merger['outer_norm']['bias']), 0
    )

  for row, mask in enumerate(considered):
    mean = table[mask].mean(0)
    np.testing.assert_allclose(plain[row], outer(mean), atol=1e-5)
    np.testing.assert_allclose(contrast[row], outer(mean - table.mean(0)), atol=1e-5)
