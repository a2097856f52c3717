"""What networks compute between the layers: outputs, gradients, padding, stochastic depth."""

import functools
import re

import flax.linen
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from initial_values import initial_values, moved
from networks import slow_unless

from ctx_flax.layers import ConvNeXtBlock
from ctx_flax.models import MODELS, create_model, used_keywords

MINI = [name for name in MODELS if name.endswith('mini')]


SETTINGS = {'num_classes': 10, 'embed_dim': 32, 'depths': (1, 1, 1, 1), 'dims': (16, 32, 48, 64)}
# What several tests look at, so that its network is compiled once.
REDUCTION = {'class_selection': 'reduction', 'class_counts': (8, 6, 4)}


@functools.cache
def mini(name, **keywords):
  """A mini model with all parameters moved off their initial zeros, and a compiled apply."""
  model = create_model(name, **used_keywords(name, SETTINGS | keywords))
  variables = initial_values(model)
  return model, {**variables, 'params': moved(variables['params'], 0.1)}


IMAGES = np.random.default_rng(1).standard_normal((4, 32, 32, 3), np.float32)


@functools.cache
def outputs(name, **keywords):
  model, variables = mini(name, **keywords)
  return jax.jit(model.apply)(variables, IMAGES)


@pytest.mark.parametrize(
  'name, selection',
  [
    ('ctx_convnext_mini', 'reduction'),
    ('ctx_resnet_mini', 'rerank'),
    pytest.param('ctx_convnext_mini', 'rerank', marks=pytest.mark.slow),
    pytest.param('ctx_resnet_mini', 'reduction', marks=pytest.mark.slow),
  ],
)
def test_contextual_outputs(name, selection):
  logits, out = outputs(name, class_selection=selection, class_counts=(8, 6, 4))
  assert logits is out['logits4'] or np.array_equal(logits, out['logits4'])
  assert logits.dtype == jnp.float32
  kinds = 'stage', 'scores', 'logits', 'considered', 'alive'
  names = [f'{kind}{s}' for s in (1, 2, 3, 4) for kind in kinds]
  names += ['context2', 'context3', 'context4', 'pre_logits', 'offsets', 'mask', 'kernel_delta']
  assert set(out) == set(names)
  for stage, count in zip((1, 2, 3, 4), (10, 8, 6, 4), strict=True):
    assert np.all(np.isfinite(out[f'scores{stage}']))
    considered = np.asarray(out[f'considered{stage}'])
    assert np.all(considered.sum(1) == count)
    finite = np.isfinite(out[f'logits{stage}'])
    np.testing.assert_array_equal(finite, considered if selection == 'reduction' else True)
    np.testing.assert_array_equal(out[f'alive{stage}'], finite)
  model, _ = mini(name, class_selection=selection, class_counts=(8, 6, 4))
  for stage in (2, 3, 4):
    assert out[f'context{stage}'].shape == (4, model.dims[stage - 2])


@pytest.mark.parametrize('name', slow_unless(['ctx_convnext_mini', 'ctx_resnet_mini'], 'ctx_convnext_mini'))
def test_class_counts_of_a_call_replace_the_attribute(name):
  """As if the model had been built with them; traced, so one program serves all."""
  model, variables = mini(name)
  expected = outputs(name, **REDUCTION)[1]
  apply = jax.jit(lambda counts: model.apply(variables, IMAGES, class_counts=counts)[1])
  out = apply(jnp.asarray([8, 6, 4]))
  for stage in (1, 2, 3, 4):
    np.testing.assert_array_equal(out[f'considered{stage}'], expected[f'considered{stage}'])
  wide = apply(jnp.asarray([10, 9, 9]))
  assert [np.unique(wide[f'considered{s}'].sum(1)).tolist() for s in (2, 3, 4)] == [[10], [9], [9]]
  assert apply._cache_size() == 1


@pytest.mark.parametrize('name', ['convnext_mini', 'resnet_mini'])
def test_plain_outputs(name):
  logits, out = outputs(name)
  assert logits.shape == (4, 10)
  assert set(out) == {
    'stage1',
    'stage2',
    'stage3',
    'stage4',
    'pre_logits',
    'scores4',
    'logits4',
    'considered4',
    'alive4',
  }
  for key in ('considered4', 'alive4'):
    assert out[key].shape == (4, 10) and out[key].dtype == bool and np.all(out[key])


# Of contextual layers and convolutions the gradients are compared with the authors' one by one.
@pytest.mark.parametrize('name', slow_unless(MINI, 'resnet_mini'))
def test_every_parameter_receives_a_gradient(name):
  model, variables = mini(name)
  weights = np.random.default_rng(5).standard_normal((4, 4, 10), np.float32)

  @jax.jit
  def gradients(params):
    def loss(params):
      (_, out), _ = model.apply({**variables, 'params': params}, IMAGES, train=True, mutable=['batch_stats'])
      stages = [s for s in (1, 2, 3, 4) if f'scores{s}' in out]
      return sum(jnp.sum(weights[s - 1] * out[f'scores{s}']) for s in stages)

    return jax.grad(loss)(params)

  exempt = 0
  for path, value in flax.traverse_util.flatten_dict(gradients(variables['params']), sep='/').items():
    # What feeds a BatchNorm is centred there: these biases have no effect in training.
    if 'resnet' in name and re.search(r'(sampling_proj|kernel_proj|head\d/proj)/bias$', path):
      exempt += 1
      continue
    assert np.abs(value).max() > 1e-6, path
  assert exempt == (10 if name == 'ctx_resnet_mini' else 0)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ctx_convnext_mini', 'ctx_resnet_mini'])
def test_adding_to_an_intermediate(name):
  model, variables = mini(name)
  _, out = outputs(name)

  @jax.jit
  def score(zero):
    return model.apply(variables, IMAGES, add={'stage4': zero})[1]['scores4'][:, 3].sum()

  gradient = jax.grad(score)(jnp.zeros_like(out['stage4']))
  step = 1e-3 * gradient
  np.testing.assert_allclose(score(step) - score(-step), 2 * jnp.sum(step * gradient), rtol=2e-2)
  with pytest.raises(ValueError, match=r"add names \['stage5'\].*'stage4'"):
    model.apply(variables, IMAGES, add={'stage5': 0.0})
  with pytest.raises(ValueError, match=r"add\['stage4'\] has shape \(3,\); expected"):
    model.apply(variables, IMAGES, add={'stage4': jnp.zeros(3)})


@pytest.mark.parametrize('name', ['ctx_convnext_mini', 'resnet_mini'])
def test_features_only(name):
  keywords = REDUCTION if name.startswith('ctx_') else {}
  model, variables = mini(name, **keywords)
  _, out = outputs(name, **keywords)
  logits, features = jax.jit(functools.partial(model.apply, features_only=True))(variables, IMAGES)
  assert logits is None and 'scores4' not in features and 'pre_logits' not in features
  np.testing.assert_allclose(features['stage4'], out['stage4'], atol=1e-4)


@pytest.mark.parametrize('name', slow_unless(['resnet_mini', 'ctx_resnet_mini'], 'resnet_mini'))
def test_frozen_batch_norm_in_training(name):
  model, variables = mini(name)
  apply = functools.partial(model.apply, train=True, train_norm=False, mutable=['batch_stats'])
  (_, out), new = jax.jit(apply)(variables, IMAGES)
  jax.tree.map(np.testing.assert_array_equal, new['batch_stats'], variables['batch_stats'])
  np.testing.assert_allclose(out['stage4'], outputs(name)[1]['stage4'], atol=1e-4)


# The contextual layers of the one, and the blocks of the other family.
@pytest.mark.parametrize('name', slow_unless(MINI, 'ctx_resnet_mini', 'convnext_mini'))
def test_padding_changes_nothing_inside(name):
  model, variables = mini(name)
  sizes = np.asarray([[64, 64], [45, 64], [64, 33], [51, 39]])
  images = np.random.default_rng(2).standard_normal((4, 64, 64, 3), np.float32)
  padded = images.copy()
  for image, (h, w) in zip(padded, sizes, strict=True):
    image[h:], image[:, w:] = 7.0, 7.0  # not even zeros are asked for
  _, out = jax.jit(model.apply)(variables, padded, valid_hw=jnp.asarray(sizes))
  h, w = sizes[3]
  _, alone = jax.jit(model.apply)(variables, images[3:, :h, :w])
  for key in ('stage1', 'stage2', 'stage3', 'stage4'):
    y, x = alone[key].shape[1:3]
    largest = np.abs(alone[key]).max()  # up to 100 in the ResNets
    atol = 2e-5 * max(largest, 10)
    np.testing.assert_allclose(out[key][3:, :y, :x], alone[key], rtol=0, atol=atol, err_msg=key)
  for key in {'context2', 'context3', 'context4', 'scores4', 'pre_logits'} & set(alone):
    np.testing.assert_allclose(out[key][3:], alone[key], atol=5e-4, err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize('name', MINI)
def test_remat_changes_neither_parameters_nor_values(name):
  _, variables = mini(name)
  remat = create_model(name, **used_keywords(name, SETTINGS), remat=True)
  other = jax.eval_shape(remat.init, jax.random.key(0), IMAGES)
  assert jax.tree.map(np.shape, other) == jax.tree.map(np.shape, variables)
  logits, out = jax.jit(remat.apply)(variables, IMAGES)
  expected_logits, expected = outputs(name)
  assert set(out) == set(expected)
  np.testing.assert_allclose(logits, expected_logits, atol=1e-4)


@pytest.mark.parametrize('size', [(33, 47), pytest.param((36, 32), marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', MINI)
def test_odd_sizes(name, size):
  model, variables = mini(name)
  _, out = jax.eval_shape(model.apply, variables, jax.ShapeDtypeStruct((1, *size, 3), jnp.float32))
  h, w = size
  for stage, stride in ((1, 4), (2, 8), (3, 16), (4, 32)):
    down = (lambda n, s: n // s) if 'convnext' in name else (lambda n, s: -(-n // s))
    assert out[f'stage{stage}'].shape[1:3] == (down(h, stride), down(w, stride))


def test_bfloat16_compute_gives_float32_scores():
  _, variables = mini('ctx_convnext_mini')
  low = create_model('ctx_convnext_mini', **SETTINGS, **REDUCTION, dtype='bfloat16')
  logits, out = jax.jit(low.apply)(variables, IMAGES)
  assert out['stage3'].dtype == jnp.bfloat16 and logits.dtype == jnp.float32
  assert out['scores1'].dtype == jnp.float32
  exact = outputs('ctx_convnext_mini', **REDUCTION)[1]['scores1']
  np.testing.assert_allclose(out['scores1'], exact, atol=0.05 * np.abs(exact).max())


def test_stochastic_depth_grows_linearly_and_spares_contextual_blocks_on_request():
  def rates(**keywords):
    model, variables = mini('ctx_convnext_mini', depths=(1, 1, 2, 1), drop_path_rate=0.4, **keywords)
    rngs = {'drop_path': jax.random.key(0)}
    seen = []

    def note(call, args, keywords, context):
      if isinstance(context.module, ConvNeXtBlock):
        seen.append(context.module.drop_path_rate)
      return call(*args, **keywords)

    with flax.linen.intercept_methods(note):
      jax.eval_shape(functools.partial(model.apply, train=True, rngs=rngs), variables, IMAGES)
    return seen

  np.testing.assert_allclose(rates(), [0, 0.1, 0.2, 0.3, 0.4])
  np.testing.assert_allclose(rates(drop_path_in_contextual=False), [0, 0, 0, 0.3, 0])


def test_stochastic_depth_draws_anew_in_every_block():
  model, variables = mini('convnext_mini', drop_path_rate=0.9)
  apply = jax.jit(functools.partial(model.apply, train=True))
  run = lambda seed: apply(variables, IMAGES, rngs={'drop_path': jax.random.key(seed)})[0]
  assert np.abs(run(0) - run(1)).max() > 1e-3
  np.testing.assert_array_equal(run(0), run(0))
