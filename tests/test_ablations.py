"""What contextual convolutions can leave out: the layer, and the networks that pass it on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_family
from initial_values import initial_values, moved

from ctx_flax.configs import command_line, rules
from ctx_flax.layers import ContextualConv
from ctx_flax.layers.ablations import ABLATIONS, ADAPTATIONS
from ctx_flax.models import create_model
from ctx_flax.ops import contextual_depthwise_conv

RNG = np.random.default_rng(0)
X, CONTEXT = RNG.standard_normal((2, 4, 5, 4), np.float32), RNG.standard_normal((2, 3), np.float32)
SMALL = {'num_classes': 4, 'depths': (1, 1, 1, 1), 'dims': (16, 16, 16, 16)}


def layer(*ablate):
  return ContextualConv(4, 3, depthwise=True, use_bias=False, mask_gain=2.0, branch_dim=3, ablate=ablate)


@pytest.fixture(scope='module')
def variables():
  shapes = jax.eval_shape(layer().init, jax.random.key(0), X, CONTEXT)
  return jax.tree.map(lambda leaf: RNG.standard_normal(leaf.shape, np.float32), shapes)


def test_a_layer_uses_what_a_new_one_has_in_place_of_what_is_left_out(variables):
  """And says so; with the parameters that it was trained with."""
  cases = *((name,) for name in ADAPTATIONS), ('mask', 'offsets'), ADAPTATIONS

  @jax.jit
  def run(variables):
    _, full = layer().apply(variables, X, CONTEXT)
    new = {name: jnp.full_like(value, float(name == 'mask')) for name, value in full.items()}
    pairs = {}
    for case in cases:
      used = full | {name: new[name] for name in case}
      arrays = (used[name] for name in ('kernel_delta', 'offsets', 'mask'))
      y = contextual_depthwise_conv(X, variables['params']['kernel'], *arrays, padding=1)
      pairs[case] = (y, used), layer(*case).apply(variables, X, CONTEXT)
    return full, pairs

  full, pairs = jax.device_get(run(variables))
  assert all(np.ptp(full[name]) > 0.1 for name in ADAPTATIONS)
  for case, (expected, actual) in pairs.items():
    np.testing.assert_allclose(actual[0], expected[0], atol=1e-5, err_msg=str(case))
    jax.tree.map(np.testing.assert_array_equal, actual[1], expected[1])


def test_branches_without_a_context_read_zeros_and_the_input(variables):
  blind, whole = (jax.jit(layer(*ablate).apply) for ablate in (('context',), ()))
  actual, expected = blind(variables, X, CONTEXT), whole(variables, X, np.zeros_like(CONTEXT))
  jax.tree.map(np.testing.assert_array_equal, actual, expected)
  assert np.abs(actual[1]['mask'] - whole(variables, X, CONTEXT)[1]['mask']).max() > 1e-3
  assert np.ptp(actual[1]['mask']) > 1e-3


@pytest.mark.parametrize(
  'ablate, branches',
  [
    ((), 'sampling kernel'),
    (('offsets',), 'sampling kernel'),
    (('kernel_delta',), 'sampling'),
    (('mask', 'offsets'), 'kernel'),
    (('context',), 'sampling kernel'),
    (ADAPTATIONS, ''),
  ],
)
def test_a_branch_that_predicts_nothing_has_no_parameters(ablate, branches):
  params = jax.eval_shape(layer(*ablate).init, jax.random.key(0), X, CONTEXT)['params']
  assert {name.partition('_')[0] for name in params if name != 'kernel'} == set(branches.split())


@pytest.mark.parametrize('name', ['ctx_convnext_mini', 'ctx_resnet_mini'])
def test_networks_pass_it_on(name):
  """Without any adaptation they are plain networks, but for the class embeddings."""

  def blocks(name, **keywords):
    model, images = create_model(name, **SMALL, **keywords), jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, train=False))
    (_, out), variables = shapes
    kept = {name: tree for name, tree in variables['params'].items() if name.startswith(('stage', 'context'))}
    return kept, out, model

  params, out, model = blocks(name, ablate=('mask', 'offsets'))
  conv = params['stage2_block0'][model.contextual_conv]
  assert 'kernel_out' in conv and 'sampling_out' not in conv and set(out['offsets']) == {'2.0', '3.0', '4.0'}
  params, out, model = blocks(name, ablate=ADAPTATIONS)
  assert model.contextual and not model.adapts and 'context4' in out and 'offsets' not in out
  assert set(params.pop('contextualizer')) > {'class_embedding', 'merger4'}
  assert params == blocks(name.removeprefix('ctx_'))[0]


@pytest.mark.slow  # the layer says the same
def test_a_trained_network_without_what_it_was_trained_with():
  """Its other parameters are found, and the branches that are left read what they did."""
  model = toy_family.Toy(num_classes=4, contextual=True, embed_dim=8, class_counts=(3, 2), mask_gain=2.0)
  images = RNG.standard_normal((1, 8, 8, 3), np.float32)
  variables = moved(initial_values(model, images.shape[1:]), 0.1)
  (_, full), (_, out) = (
    jax.jit(network.apply)(variables, images)
    for network in (model, model.clone(ablate=('kernel_delta', 'mask')))
  )
  assert np.ptp(full['mask']['2.0']) > 0 and np.any(full['kernel_delta']['2.0'])
  np.testing.assert_array_equal(out['mask']['2.0'], np.ones_like(full['mask']['2.0']))
  assert not np.any(out['kernel_delta']['2.0'])
  np.testing.assert_allclose(out['offsets']['2.0'], full['offsets']['2.0'], atol=1e-6)
  assert np.abs(out['scores2'] - full['scores2']).max() > 1e-4


def test_names():
  assert rules.ABLATIONS == ABLATIONS  # configs are read without jax
  rule = rules.RULES['model.ablate']
  assert not rule.problem(ABLATIONS) and not rule.problem(())
  assert rule.problem(('kernel',)).endswith("did you mean 'kernel_delta'?")
  assert rule.problem('mask') == "must be a tuple, but is 'mask'"
  assert 'model.ablate' in command_line.CONTEXTUAL_FIELDS
  with pytest.raises(ValueError, match=r"ablate=\('maks',\): expected names of .*; did you mean 'mask'"):
    layer('maks').init(jax.random.key(0), X, CONTEXT)
