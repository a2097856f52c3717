"""Our modules and networks against the authors' released PyTorch modules, values and gradients.

Tolerances are relative to an array's largest absolute value, at least 1: 2e-5 for modules, 5e-4 for whole
networks in float32 (where the goldens' own float32 and float64 runs differ by up to 2e-4).
"""

import functools
import json

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_networks import NETWORKS, network, part
from torch_names import variable_from_torch, variables_from_torch

from ctx_flax.layers import BatchNorm, ContextualConv, Contextualizer, LayerNorm

MODULE, NETWORK = 2e-5, 5e-4
# LayerNorm over the two hidden units of the small ConvNeXt's stage-2 branches is ill-conditioned; gradients
# that pass through it differed by up to 6.2e-4 of the largest value.
GRADIENT = 2e-3


def assert_near(actual, expected, tolerance, what='', floor=1.0):
  actual, expected = np.asarray(actual), np.asarray(expected)
  assert actual.shape == expected.shape, what
  finite = np.isfinite(expected)  # dropped classes are -inf
  np.testing.assert_array_equal(actual[~finite], expected[~finite], err_msg=what)
  scale = max(floor, np.abs(expected[finite]).max(initial=0))
  error = np.abs(actual[finite] - expected[finite]).max(initial=0) / scale
  assert error <= tolerance, f'{what}: {error:.2e} of the largest value, more than {tolerance}'


def nhwc(x):
  return np.moveaxis(x, 1, -1) if x.ndim == 4 else x


def assert_gradients(gradients, expected, family, tolerance, zero_biases=False):
  ours = flax.traverse_util.flatten_dict({'params': gradients})
  for name, value in expected.items():
    # A bias that feeds a BatchNorm in training has gradient zero; what is left (4e-5 in the goldens) is
    # rounding of its weight's gradient (59 there), so that is its scale. Elsewhere the floor stays 1.
    weight = (
      expected.get(f'{name.removesuffix("bias")}weight') if zero_biases and name.endswith('.0.bias') else 1
    )
    path, value = variable_from_torch(name, value, family)
    assert_near(ours[path], value, tolerance, f'gradient of {name}', max(1, np.abs(weight).max()))


# Whether in training: with LayerNorm both modes are one. Every kind, stride and mode is fast once.
slow = functools.partial(pytest.param, marks=pytest.mark.slow)
CONVS = [
  *(('a_dw7_c48', False), ('a_dw7_c48_zeroinit', False), slow('a_dw7_c12_hid4', False)),
  *(('b_dense3_c8_s1', False), slow('b_dense3_c8_s1', True)),
  *(slow('b_dense3_c8_s2', False), ('b_dense3_c8_s2', True)),
  *(('b_dense3_c8_s2_zeroinit', False), slow('b_dense3_c8_s2_zeroinit', True)),
]


@pytest.mark.parametrize(('name', 'train'), CONVS)
def test_contextual_conv(golden, name, train):
  data = golden(name)
  meta = json.loads(str(data['meta']))
  assert ('train/out/y' in data) == (meta['kind'] != 'dw')
  depthwise = meta['kind'] == 'dw'
  layer = ContextualConv(
    meta['C'],
    meta['k'],
    meta['stride'],
    depthwise=depthwise,
    use_bias=depthwise,
    branch_dim=meta['forced_hidden'],
    norm=LayerNorm if depthwise else BatchNorm,
  )
  variables = variables_from_torch(part(data, 'param/'), 'conv')
  mode = 'train/' if train else ''
  x, context = nhwc(data['in/x']), data['in/context']

  @jax.jit
  def run(params, x, context, dy):
    def apply(params, x, context):
      (y, adaptation), new = layer.apply(
        {**variables, 'params': params}, x, context, train=train, mutable=['batch_stats']
      )
      return jnp.sum(y * dy), (y, adaptation, new)

    return jax.grad(apply, argnums=(0, 1, 2), has_aux=True)(params, x, context)

  expected_shapes = jax.eval_shape(lambda k: layer.init(k, x, context), jax.random.key(0))
  assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda a: a.shape, expected_shapes)
  dy = nhwc(data[f'{mode}in/grad_y'])
  (dparams, dx, dcontext), (y, adaptation, new) = run(variables['params'], x, context, dy)
  b, u, v, k = *y.shape[:3], meta['k'] ** 2
  offset = nhwc(data[f'{mode}mid/offset']).reshape(b, u, v, k, 2)
  assert_near(y, nhwc(data[f'{mode}out/y']), MODULE, 'y')
  assert_near(adaptation['offsets'], offset, MODULE, 'offsets')
  assert_near(adaptation['mask'], nhwc(data[f'{mode}mid/mask']), MODULE, 'mask')
  delta = data[f'{mode}mid/delta_w']
  delta = np.moveaxis(delta.reshape(b, meta['C'], meta['k'], meta['k']), 1, -1)
  assert_near(adaptation['kernel_delta'], delta, MODULE, 'kernel_delta')
  assert_near(dx, nhwc(data[f'{mode}grad/x']), MODULE, 'gradient of x')
  assert_near(dcontext, data[f'{mode}grad/context'], MODULE, 'gradient of the context')
  assert_gradients(dparams, part(data, f'{mode}grad/param/'), 'conv', MODULE, zero_biases=train)
  if 'zeroinit' in name:
    # All points lie on pixels: a symmetric offset gradient would be zero here.
    assert np.abs(dparams['sampling_out']['bias'][: 2 * k]).max() > 1e-3
  if train:
    after = part(data, 'train/after/')
    assert after
    compare_statistics(new, after, 'conv', MODULE)


def compare_statistics(new, after, family, tolerance):
  ours = flax.traverse_util.flatten_dict(new)
  for name, value in after.items():
    if name.endswith('num_batches_tracked'):
      continue
    path, value = variable_from_torch(name, value, family)
    assert_near(ours[path], value, tolerance, name)


@pytest.mark.parametrize('selection', ['rerank', 'reduction'])
@pytest.mark.parametrize('family', ['convnext', 'resnet'])
def test_contextualizing_layers(golden, family, selection):
  data = golden(f'c_contextualizing_{family}')
  meta = json.loads(str(data['meta']))
  heads = tuple(dim // meta['block_expansion'] for dim in meta['dims'])
  contextualizer = Contextualizer(
    meta['N'],
    tuple(meta['ks'][:3]),
    head_dims=heads,
    context_dims=heads[:3],
    embed_dim=meta['d_emb'],
    selection=selection,
    norm=LayerNorm if family == 'convnext' else BatchNorm,
  )
  variables = variables_from_torch(part(data, 'param/'), family)
  features = [nhwc(data[f'in/x{stage}']) for stage in (1, 2, 3, 4)]
  shapes = jax.eval_shape(lambda k: contextualizer.init(k, features), jax.random.key(0))
  assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda a: a.shape, shapes)

  def run(module, features):
    considered, stages = jnp.ones((features[0].shape[0], meta['N']), bool), []
    for stage, x in enumerate(features, 1):
      scores, context, before = module.score(x, stage), None, considered
      if stage < 4:
        considered = module.select(scores, considered, stage)
        context = module.context(considered, stage + 1)
      stages.append((scores, before, context))
    return stages

  stages = jax.jit(functools.partial(contextualizer.apply, method=run))(variables, features)
  check_stages(data, stages, selection, MODULE)


def check_stages(data, stages, selection, tolerance, prefix=None):
  """stages: (scores, considered, next context) of stages 1-4 against the sorted goldens."""
  red = 'red/' if selection == 'reduction' else (prefix or 'rerank/')
  n = stages[0][0].shape[1]
  for stage, (scores, considered, context) in enumerate(stages, 1):
    logits = data[f'{red}logits{stage}']
    if selection == 'reduction':
      classes = data[f'red/labels_in{stage}']
      for row, alive in zip(classes, np.asarray(considered), strict=True):
        assert set(row) == set(np.flatnonzero(alive)), f'stage {stage} considers other classes'
    else:
      start = np.broadcast_to(np.arange(n), logits.shape)
      classes = start if stage == 1 else data[f'{red}labels_sorted{stage - 1}']
    ours = np.take_along_axis(np.asarray(scores), classes, 1)
    assert_near(ours, logits, tolerance, f'scores of stage {stage}')
    name = f'{red}context{stage + 1}'
    if context is not None and name in data:
      assert_near(context, data[name], tolerance, name)


@pytest.mark.parametrize('selection', ['rerank', pytest.param('reduction', marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', NETWORKS)
def test_network(golden, name, selection):
  data, (family, _) = golden(name), NETWORKS[name]
  model = network(family, selection)
  variables = variables_from_torch(part(data, 'param/'), family)
  images = nhwc(data['in/x'])
  shapes = jax.eval_shape(lambda k: model.init(k, images), jax.random.key(0))
  assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda a: a.shape, shapes)
  logits, out = jax.jit(model.apply)(variables, images)
  stages = [(out[f'scores{s}'], out[f'considered{s}'], out.get(f'context{s + 1}')) for s in (1, 2, 3, 4)]
  check_stages(data, stages, selection, NETWORK, prefix='out/')
  assert_near(logits, data['red/pred' if selection == 'reduction' else 'out/pred'], NETWORK, 'prediction')
  if selection == 'rerank':
    for stage in (1, 2, 3, 4):
      assert_near(out[f'stage{stage}'], nhwc(data[f'mid/stage{stage}']), NETWORK, f'stage{stage}')
      if stage > 1:
        assert_near(out[f'context{stage}'], data[f'mid/context{stage}'], NETWORK, f'context{stage}')


def smoothed(scores, label, smoothing=0.1):
  log_p = jax.nn.log_softmax(scores)
  picked = jnp.take_along_axis(log_p, label[:, None], 1)[:, 0]
  return -jnp.mean((1 - smoothing) * picked + smoothing * jnp.mean(log_p, 1))


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_network_gradients(golden, name):
  """The released loss (reranking, smoothing 0.1) of the whole network, all gradients' norms, some in full."""
  data, (family, _) = golden(name), NETWORKS[name]
  model = network(family, 'rerank')
  variables = variables_from_torch(part(data, 'param/'), family)
  images, label = nhwc(data['in/x']), jnp.asarray(data['in/target'])

  @jax.jit
  def run(params):
    def loss(params):
      _, out = model.apply({**variables, 'params': params}, images)
      losses = jnp.stack([smoothed(out[f'scores{s}'], label) for s in (1, 2, 3, 4)])
      return jnp.sum(losses * jnp.asarray([0.15, 0.15, 0.15, 1.0]))

    return jax.value_and_grad(loss)(params)

  loss, gradients = run(variables['params'])
  assert_near(loss, data['out/loss'] - 4e-6, NETWORK, 'loss')
  ours = flax.traverse_util.flatten_dict({'params': gradients})
  assert len(data['grad/names']) == len(ours)
  for torch_name, norm in zip(data['grad/names'], data['grad/norms'], strict=True):
    shaped = data[f'param/{torch_name}']
    path, _ = variable_from_torch(str(torch_name), shaped, family)
    assert_near(np.linalg.norm(ours[path]), norm, GRADIENT, f'norm of the gradient of {torch_name}')
  full = {k: v for k, v in part(data, 'grad/').items() if k not in ('names', 'norms')}
  assert_gradients(gradients, full, family, GRADIENT)


@pytest.mark.slow
def test_resnet_in_training(golden):
  """Batch statistics, scores and the running statistics after one step."""
  data = golden('f_ctx_resnet_small')
  model, variables = network('resnet', 'rerank'), variables_from_torch(part(data, 'param/'), 'resnet')
  apply = jax.jit(functools.partial(model.apply, train=True, mutable=['batch_stats']))
  (_, out), new = apply(variables, nhwc(data['in/x']))
  order = np.broadcast_to(np.arange(20), data['train/logits1'].shape)
  scores = np.take_along_axis(np.asarray(out['scores1']), order, 1)
  assert_near(scores, data['train/logits1'], NETWORK, 'scores')
  for stage in (2, 3, 4):
    # Sorted by the scores of the stage before; the sorted values are the same in any order.
    ours = np.sort(np.asarray(out[f'scores{stage}']))
    assert_near(ours, np.sort(data[f'train/logits{stage}']), NETWORK, f'scores of stage {stage}')
  compare_statistics(new, part(data, 'train/after/'), 'resnet', NETWORK)
