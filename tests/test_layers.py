"""The layers: initial state, what they adapt to, stochastic depth."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_arrays import KEY, normal

from ctx_flax.layers import (
  BatchNorm,
  ContextualConv,
  ConvNeXtBlock,
  DeformConv,
  DropPath,
  LayerNorm,
)
from ctx_flax.ops import deform_conv


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


GEOMETRIES = [(True, 7, 1, 1), (True, 3, 2, 1), (False, 3, 1, 2), (False, 3, 2, 1), (False, 1, 1, 1)]
OTHERS = list(itertools.product([1.0, 2.0], [LayerNorm, BatchNorm]))
# All geometries, gains and norms, but not each with each.
MIXED = [
  pytest.param(*geometry, *other, marks=() if i % len(OTHERS) == j else pytest.mark.slow)
  for i, geometry in enumerate(GEOMETRIES)
  for j, other in enumerate(OTHERS)
]


@pytest.mark.parametrize('depthwise, kernel_size, strides, dilation, mask_gain, norm', MIXED)
def test_fresh_contextual_conv_is_half_the_plain_one(
  depthwise, kernel_size, strides, dilation, mask_gain, norm
):
  c = 8
  layer = ContextualConv(
    c if depthwise else 6, kernel_size, strides, None, dilation, depthwise, norm=norm, mask_gain=mask_gain
  )
  x, context = normal(1, 2, 9, 8, c), normal(2, 2, 5)
  padding = dilation * (kernel_size // 2)

  @jax.jit
  def run(x, context):
    variables = layer.init(KEY, x, context)
    variables['params']['bias'] += 1.5
    kernel = variables['params']['kernel']
    plain = convolution(x, kernel, strides, padding, dilation, c if depthwise else 1)
    return *layer.apply(variables, x, context), plain

  y, adaptation, plain = jax.device_get(run(x, context))
  np.testing.assert_allclose(y, 0.5 * mask_gain * plain + 1.5, atol=1e-5)
  assert not np.any(adaptation['offsets']) and not np.any(adaptation['kernel_delta'])
  np.testing.assert_array_equal(adaptation['mask'], 0.5 * mask_gain)


@pytest.mark.parametrize('depthwise', [True, False])
def test_contextual_conv_adapts_to_context_and_input(depthwise):
  layer = ContextualConv(32, 3, depthwise=depthwise)
  x, context = normal(1, 1, 6, 6, 32), normal(2, 1, 5)
  params = jax.device_get(jax.jit(layer.init)(KEY, x, context))['params']
  params = jax.tree.map(lambda p: p + 0.1 * normal(p.size, *p.shape), params)
  apply = jax.jit(lambda x, context: layer.apply({'params': params}, x, context)[1])
  base, other_context, other_input = jax.device_get(
    (apply(x, context), apply(x, context + 1), apply(x[:, ::-1] * 1.5, context))
  )
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
  inputs = np.zeros((1, 9, 9, 96), np.float32), np.zeros((1, 48), np.float32)
  params = jax.device_get(jax.jit(layer.init)(KEY, *inputs))['params']
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


@pytest.mark.parametrize('layer', [ContextualConv(8, kernel_size=3), DeformConv(8, kernel_size=3)])
def test_an_image_without_a_batch_is_refused_by_name(layer):
  context = (normal(1, 1, 4),) if isinstance(layer, ContextualConv) else ()
  with pytest.raises(ValueError, match=r'x has shape \(5, 5, 8\); expected \(b, h, w, c\)'):
    layer.init(KEY, normal(0, 5, 5, 8), *context)


def test_integers_of_numpy_are_integers():
  three = np.int64(3)
  layer = ContextualConv(8, three, strides=np.int32(2), padding=(np.int64(1), 1), dilation=np.int8(1))
  inputs = normal(0, 1, 6, 6, 8), normal(1, 1, 4)
  (y, _), _ = jax.eval_shape(lambda: layer.init_with_output(KEY, *inputs))
  assert y.shape == (1, 3, 3, 8)
  deform = DeformConv(8, three, groups=np.int64(2), offset_groups=np.int64(2))
  assert jax.eval_shape(lambda: deform.init_with_output(KEY, inputs[0])[0]).shape == (1, 6, 6, 8)
  with pytest.raises(ValueError, match=r'kernel_size=3\.0: expected an int'):
    ContextualConv(8, 3.0).init(KEY, *inputs)


def test_contextual_conv_in_bfloat16():
  layer = ContextualConv(32, 3, depthwise=True, dtype=jnp.bfloat16)
  x, context = normal(1, 2, 6, 6, 32), normal(2, 2, 5)
  variables = jax.jit(layer.init)(KEY, x, context)
  assert variables['params']['kernel'].dtype == jnp.float32
  y, _ = jax.jit(layer.apply)(variables, x, context)
  exact, _ = jax.jit(ContextualConv(32, 3, depthwise=True).apply)(variables, x, context)
  y, exact = jax.device_get((y, exact))
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(y.astype(np.float32), exact, atol=0.02 * np.abs(exact).max())


@pytest.mark.parametrize(
  'groups, offset_groups, strides', [pytest.param(1, 1, 1, marks=pytest.mark.slow), (2, 4, 2)]
)
def test_deform_conv_layer(groups, offset_groups, strides):
  layer = DeformConv(6, 3, strides, groups=groups, offset_groups=offset_groups)
  x = normal(1, 2, 7, 9, 8)
  params = jax.device_get(jax.jit(layer.init)(KEY, x))['params']
  apply = jax.jit(lambda params: layer.apply({'params': params}, x))
  plain = np.asarray(jax.jit(lambda kernel: convolution(x, kernel, strides, 1, 1, groups))(params['kernel']))
  np.testing.assert_allclose(apply(params), 0.5 * plain, atol=1e-5)

  # Every group and tap reads its own part of the predicted channels.
  k, grid = 9, plain.shape[:3]
  params['sampling']['bias'] = bias = normal(3, 3 * offset_groups * k)
  offsets = np.broadcast_to(bias[: 2 * offset_groups * k], (*grid, 2 * offset_groups * k))
  mask = 1 / (1 + np.exp(-np.broadcast_to(bias[2 * offset_groups * k :], (*grid, offset_groups * k))))
  expected = jax.jit(functools.partial(deform_conv, strides=strides, padding=1, groups=groups))(
    x,
    params['kernel'],
    offsets.reshape(*grid, offset_groups, k, 2),
    mask.reshape(*grid, offset_groups, k),
  )
  np.testing.assert_allclose(apply(params), expected, atol=1e-5)
  gradients = jax.device_get(jax.jit(jax.grad(lambda p: jnp.sum(apply(p) ** 2)))(params))
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
  with pytest.raises(ValueError, match='offset_groups=3 must be a positive divisor of the 8 input channels'):
    DeformConv(6, 3, offset_groups=3).init(KEY, x)


def test_drop_path():
  x = np.ones((400, 2, 2, 3), np.float32)
  layer = DropPath(0.25)
  np.testing.assert_array_equal(layer.apply({}, x), x)
  drop = jax.jit(lambda key: layer.apply({}, x, train=True, rngs={'drop_path': key}))
  y = np.asarray(drop(KEY))
  assert set(np.unique(y.round(5))) == {0, np.float32(1.33333)}
  assert all(len(np.unique(image)) == 1 for image in y)  # whole images
  assert 0.65 < np.mean(y > 0) < 0.85
  again = np.asarray(drop(jax.random.key(1)))
  assert np.any(y != again)


def test_convnext_block_is_the_identity_plus_a_scaled_branch():
  block = ConvNeXtBlock(layer_scale_init=1e-6)
  x = normal(1, 1, 7, 7, 8)
  variables = jax.jit(block.init)(KEY, x)
  apply = jax.jit(block.apply)
  y, adaptation = apply(variables, x)
  assert adaptation is None
  np.testing.assert_allclose(y, x, atol=1e-6)
  without, _ = jax.jit(ConvNeXtBlock(layer_scale_init=0.0).apply)(variables, x)
  variables['params']['layer_scale']['gamma'] = np.ones(8, np.float32)
  scaled, _ = jax.device_get(apply(variables, x))
  np.testing.assert_allclose(scaled, without, atol=1e-6)
  assert np.abs(scaled - x).max() > 1e-3
