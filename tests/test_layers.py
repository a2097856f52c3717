"""The layers: initial state, what they adapt to, normalisation, class selection."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_flax.layers import (
  BatchNorm,
  ContextualConv,
  Contextualizer,
  ConvNeXtBlock,
  DeformConv,
  DropPath,
  LayerNorm,
)
from ctx_flax.layers.contextualizer import best_classes, default_class_counts
from ctx_flax.ops import deform_conv

KEY = jax.random.key(0)


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def convolution(x, kernel, strides, padding, dilation, groups=1):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (strides, strides),
    ((padding, padding), (padding, padding)),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


@pytest.mark.parametrize('norm', [LayerNorm, BatchNorm])
@pytest.mark.parametrize('mask_gain', [1.0, 2.0])
@pytest.mark.parametrize(
  'depthwise, kernel_size, strides, dilation',
  [(True, 7, 1, 1), (True, 3, 2, 1), (False, 3, 1, 2), (False, 3, 2, 1), (False, 1, 1, 1)],
)
def test_fresh_contextual_conv_is_half_the_plain_one(
  norm, mask_gain, depthwise, kernel_size, strides, dilation
):
  c = 8
  layer = ContextualConv(
    c if depthwise else 6, kernel_size, strides, None, dilation, depthwise, norm=norm, mask_gain=mask_gain
  )
  x, context = normal(1, 2, 9, 8, c), normal(2, 2, 5)
  variables = layer.init(KEY, x, context)
  variables['params']['bias'] += 1.5
  y, adaptation = layer.apply(variables, x, context)
  kernel = variables['params']['kernel']
  padding = dilation * (kernel_size // 2)
  plain = convolution(x, kernel, strides, padding, dilation, c if depthwise else 1)
  np.testing.assert_allclose(y, 0.5 * mask_gain * plain + 1.5, atol=1e-5)
  assert not np.any(adaptation['offsets']) and not np.any(adaptation['kernel_delta'])
  np.testing.assert_array_equal(adaptation['mask'], 0.5 * mask_gain)


@pytest.mark.parametrize('depthwise', [True, False])
def test_contextual_conv_adapts_to_context_and_input(depthwise):
  layer = ContextualConv(32, 3, depthwise=depthwise)
  x, context = normal(1, 1, 6, 6, 32), normal(2, 1, 5)
  params = layer.init(KEY, x, context)['params']
  params = jax.tree.map(lambda p: p + 0.1 * normal(p.size, *p.shape), params)
  _, base = layer.apply({'params': params}, x, context)
  _, other_context = layer.apply({'params': params}, x, context + 1)
  _, other_input = layer.apply({'params': params}, x[:, ::-1] * 1.5, context)
  for name in ('offsets', 'mask', 'kernel_delta'):
    assert np.abs(base[name] - other_context[name]).max() > 1e-4, name
    assert np.abs(base[name] - other_input[name]).max() > 1e-4, name
  assert base['kernel_delta'].shape == (1, 3, 3, 32)


@pytest.mark.parametrize(
  'c, kernel_size, hidden', [(192, 7, 12), (128, 3, 32), (8, 7, 1), (12, 5, 3), (64, 9, 1)]
)
def test_branch_dim(c, kernel_size, hidden):
  layer = ContextualConv(c, kernel_size, depthwise=True)
  shapes = jax.eval_shape(layer.init, KEY, jnp.zeros((1, 9, 9, c)), jnp.zeros((1, 5)))['params']
  assert shapes['sampling_proj']['kernel'].shape == (5 + c, hidden)
  assert shapes['kernel_proj']['kernel'].shape == (5 + c, hidden)
  assert shapes['sampling_out']['kernel'].shape == (kernel_size, kernel_size, hidden, 3 * kernel_size**2)
  assert shapes['kernel_out']['kernel'].shape == (hidden, c * kernel_size**2)


def test_initial_values_of_the_branches():
  layer = ContextualConv(96, 7, depthwise=True, branch_dim=40)
  params = layer.init(KEY, jnp.zeros((1, 9, 9, 96)), jnp.zeros((1, 48)))['params']
  bound = (96 + 48) ** -0.5
  for name in ('sampling_proj', 'kernel_proj'):
    for leaf in params[name].values():
      assert bound * 0.9 < np.abs(leaf).max() <= bound
  assert not np.any(params['sampling_out']['kernel']) and not np.any(params['kernel_out']['kernel'])
  assert 0.018 < np.std(params['kernel']) < 0.022


def test_contextual_conv_errors():
  x = jnp.zeros((2, 8, 8, 4))
  with pytest.raises(ValueError, match=r'context has shape \(3, 5\); expected \(b, e\) = \(2, e\)'):
    ContextualConv(4, 3).init(KEY, x, jnp.zeros((3, 5)))
  with pytest.raises(ValueError, match='features=6 must equal the 4 input channels'):
    ContextualConv(6, 3, depthwise=True).init(KEY, x, jnp.zeros((2, 5)))


def test_contextual_conv_in_bfloat16():
  layer = ContextualConv(32, 3, depthwise=True, dtype=jnp.bfloat16)
  x, context = normal(1, 2, 6, 6, 32), normal(2, 2, 5)
  variables = layer.init(KEY, x, context)
  assert variables['params']['kernel'].dtype == jnp.float32
  y, _ = layer.apply(variables, x, context)
  exact, _ = ContextualConv(32, 3, depthwise=True).apply(variables, x, context)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(y.astype(np.float32), exact, atol=0.02 * np.abs(exact).max())


@pytest.mark.parametrize('groups, offset_groups, strides', [(1, 1, 1), (2, 4, 2)])
def test_deform_conv_layer(groups, offset_groups, strides):
  layer = DeformConv(6, 3, strides, groups=groups, offset_groups=offset_groups)
  x = normal(1, 2, 7, 9, 8)
  params = layer.init(KEY, x)['params']
  plain = convolution(x, params['kernel'], strides, 1, 1, groups)
  np.testing.assert_allclose(layer.apply({'params': params}, x), 0.5 * plain, atol=1e-5)

  # Every group and tap reads its own part of the predicted channels.
  k, grid = 9, plain.shape[:3]
  params['sampling']['bias'] = bias = normal(3, 3 * offset_groups * k)
  offsets = jnp.broadcast_to(bias[: 2 * offset_groups * k], (*grid, 2 * offset_groups * k))
  mask = jax.nn.sigmoid(jnp.broadcast_to(bias[2 * offset_groups * k :], (*grid, offset_groups * k)))
  expected = deform_conv(
    x,
    params['kernel'],
    offsets.reshape(*grid, offset_groups, k, 2),
    mask.reshape(*grid, offset_groups, k),
    strides=strides,
    padding=1,
    groups=groups,
  )
  np.testing.assert_allclose(layer.apply({'params': params}, x), expected, atol=1e-5)
  gradients = jax.grad(lambda p: jnp.sum(layer.apply({'params': p}, x) ** 2))(params)
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
  with pytest.raises(ValueError, match='offset_groups=3 must be a positive divisor of the 8 input channels'):
    DeformConv(6, 3, offset_groups=3).init(KEY, x)


def test_layer_norm_against_numpy():
  x = np.asarray(normal(1, 4, 5, 3)) * 0.01 + 100  # mean(x^2) - mean(x)^2 has no correct digit here
  layer = LayerNorm(1e-5)
  params = {'scale': jnp.asarray([1.0, 2.0, 3.0]), 'bias': jnp.asarray([0.5, 0.0, -1.0])}
  wide = x.astype(np.float64)
  expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
  expected = expected * np.asarray(params['scale']) + np.asarray(params['bias'])
  np.testing.assert_allclose(layer.apply({'params': params}, x), expected, atol=2e-2)
  np.testing.assert_allclose(layer.apply({'params': params}, x - 100), expected, atol=2e-2)


def test_batch_norm_normalises_with_the_biased_and_stores_the_unbiased_variance():
  x = normal(1, 3, 2, 2, 4) * 2 + 1
  layer = BatchNorm()
  variables = layer.init(KEY, x)
  y, new = layer.apply(variables, x, train=True, mutable=['batch_stats'])
  rows = np.asarray(x, np.float64).reshape(-1, 4)
  np.testing.assert_allclose(y.reshape(-1, 4), (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5), atol=1e-5)
  stats = new['batch_stats']
  np.testing.assert_allclose(stats['mean'], 0.1 * rows.mean(0), rtol=1e-5)
  np.testing.assert_allclose(stats['var'], 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-5)
  running = layer.apply({**variables, **new}, x)
  np.testing.assert_allclose(
    running,
    (x - stats['mean'].reshape(1, 1, 1, 4)) / np.sqrt(stats['var'] + 1e-5).reshape(1, 1, 1, 4),
    atol=1e-5,
  )


def test_batch_norm_over_devices_is_that_of_the_whole_batch():
  x = normal(1, 16, 5) * 3
  whole = BatchNorm()
  variables = whole.init(KEY, x)
  expected, new = whole.apply(variables, x, train=True, mutable=['batch_stats'])
  synced = BatchNorm(axis_name='batch')
  run = jax.pmap(
    lambda x: synced.apply(variables, x, train=True, mutable=['batch_stats']),
    'batch',
    devices=jax.devices()[:8],
  )
  y, new_devices = run(x.reshape(8, 2, 5))
  np.testing.assert_allclose(y.reshape(16, 5), expected, atol=1e-5)
  for name in ('mean', 'var'):
    for device in range(8):
      np.testing.assert_allclose(
        new_devices['batch_stats'][name][device], new['batch_stats'][name], rtol=1e-5, err_msg=name
      )


def test_drop_path():
  x = jnp.ones((400, 2, 2, 3))
  layer = DropPath(0.25)
  np.testing.assert_array_equal(layer.apply({}, x), x)
  y = np.asarray(layer.apply({}, x, train=True, rngs={'drop_path': KEY}))
  assert set(np.unique(y.round(5))) == {0, np.float32(1.33333)}
  assert all(len(np.unique(image)) == 1 for image in y)  # whole images
  assert 0.65 < np.mean(y > 0) < 0.85
  again = layer.apply({}, x, train=True, rngs={'drop_path': jax.random.key(1)})
  assert np.any(y != again)


def test_convnext_block_is_the_identity_plus_a_scaled_branch():
  block = ConvNeXtBlock(layer_scale_init=1e-6)
  x = normal(1, 1, 7, 7, 8)
  variables = block.init(KEY, x)
  y, adaptation = block.apply(variables, x)
  assert adaptation is None
  np.testing.assert_allclose(y, x, atol=1e-6)
  without, _ = ConvNeXtBlock(layer_scale_init=0.0).apply(variables, x)
  variables['params']['layer_scale']['gamma'] = jnp.ones(8)
  scaled, _ = block.apply(variables, x)
  np.testing.assert_allclose(scaled, without, atol=1e-6)
  assert np.abs(scaled - x).max() > 1e-3


@pytest.mark.parametrize('count', [1, 3, 7, 8])
def test_best_classes_keeps_exactly_count_ties_by_index(count):
  scores = np.asarray(
    [[3, 1, 2, 0, 7, 5, 4, 6], [1, 1, 1, 1, 1, 1, 1, 1], [0, 2, 2, 1, 2, 1, 1, 2]], np.float32
  )
  scores = np.concatenate([scores, np.asarray(normal(1, 3, 8))])
  kept = np.asarray(best_classes(jnp.asarray(scores), count))
  for row, mask in zip(scores, kept, strict=True):
    assert set(np.flatnonzero(mask)) == set(np.argsort(-row, kind='stable')[:count])


def test_best_classes_among_dropped_ones():
  scores = jnp.asarray([[1.0, -jnp.inf, 3.0, -jnp.inf, 2.0]])
  np.testing.assert_array_equal(best_classes(scores, 3), [[True, False, True, False, True]])


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
  variables = module.init(KEY, FEATURES)
  variables = jax.tree.map(lambda p: p + 0.5 * normal(p.size, *p.shape), variables)
  out = module.apply(variables, FEATURES, method=stages)
  nested = True
  for (scores, before), (_, after), count in zip(out, out[1:], (8, 5, 3), strict=False):
    for row, alive, kept in zip(np.asarray(scores), np.asarray(before), np.asarray(after), strict=True):
      allowed = np.where(alive, row, -np.inf) if selection == 'reduction' else row
      assert set(np.flatnonzero(kept)) == set(np.argsort(-allowed, kind='stable')[:count])
      nested &= bool(np.all(alive[kept]))
  assert nested == (selection == 'reduction')


def test_scores_are_scaled_cosines():
  module = contextualizer()
  variables = module.init(KEY, FEATURES)
  scores = module.apply(variables, FEATURES[0], 1, method='score')
  u = module.apply(variables, FEATURES[0].mean((1, 2)), method=lambda m, x: m.heads[0](x))
  u, e = np.asarray(u, np.float64), np.asarray(variables['params']['class_embedding'], np.float64)
  cosine = (u @ e.T) / np.linalg.norm(u, axis=1, keepdims=True) / np.linalg.norm(e, axis=1)
  np.testing.assert_allclose(scores, cosine / 0.07, rtol=1e-4)


def test_merger_is_the_mean_over_considered_classes():
  module = contextualizer()
  variables = module.init(KEY, FEATURES)
  params = jax.tree.map(lambda p: p + 0.3 * normal(p.size, *p.shape), variables['params'])
  considered = np.asarray(normal(7, 4, 12)) > 0
  context = module.apply({'params': params}, jnp.asarray(considered), 3, method='context')
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
  params = module.init(KEY, FEATURES)['params']
  params['class_embedding'] = params['class_embedding'].at[3].set(0)
  params['head1']['out'] = jax.tree.map(jnp.zeros_like, params['head1']['out'])
  loss = lambda p: jnp.sum(module.apply({'params': p}, FEATURES[0], 1, method='score') ** 2)
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(jax.grad(loss)(params)))


def test_no_gradient_passes_the_selection():
  module = contextualizer()
  params = module.init(KEY, FEATURES)['params']

  def context(params):
    def run(m, x):
      considered = jnp.ones((4, 12), bool)
      return m.context(m.select(m.score(x, 1), considered, 1), 2)

    return jnp.sum(module.apply({'params': params}, FEATURES[0], method=run) ** 2)

  gradients = jax.grad(context)(params)
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
  variables = module.init(KEY, FEATURES)
  assert set(variables['batch_stats']) == {'head1', 'head2', 'head3', 'head4'}
  bound = 6**-0.5
  assert bound * 0.8 < np.abs(variables['params']['head1']['proj']['kernel']).max() <= bound
  assert 0 < np.abs(variables['params']['head1']['proj']['bias']).max() <= bound
