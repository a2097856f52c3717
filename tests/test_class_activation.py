"""Class activation maps against gradients by hand and by differences; maps as they are drawn."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from initial_values import initial_values, moved
from networks import CONTEXTUAL, CONVNEXT, TINY, network

from ctx_flax.analysis import class_activation
from ctx_flax.analysis.class_activation import METHODS, class_activation_map
from ctx_flax.models import create_model


@pytest.fixture(scope='module')
def plain():
  return drawn('convnext_mini', **CONVNEXT)


@pytest.fixture(scope='module')
def last_stage(plain):
  """({method: (maps, scores)} of class 3 at stage 4, what the network computes), of one program."""
  model, variables, images = plain

  @jax.jit
  def compute(images):
    of = lambda method: class_activation_map(model, variables, images, jnp.array([3, 3]), 4, method)
    return {method: of(method) for method in METHODS}, model.apply(variables, images, train=False)[1]

  return compute(images)


@pytest.fixture(scope='module')
def contextual():
  return network('ctx_convnext_mini', **CONVNEXT, **CONTEXTUAL)


def drawn(name, **keywords):
  """(model, variables, images) as from `network`, whose initialisation takes long to compile."""
  model = create_model(name, **TINY, **keywords)
  images = np.random.default_rng(1).standard_normal((2, 32, 32, 3), np.float32)
  return model, moved(initial_values(model), 0.2), images


def by_hand(features, head, norm, number):
  """The gradient of a class's score with respect to stage 4: mean, LayerNorm (eps 1e-6), linear; in NumPy."""
  _, h, w, _ = features.shape
  pooled = features.astype(np.float64).mean((1, 2))
  centred = pooled - pooled.mean(-1, keepdims=True)
  deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
  unit = centred / deviation
  outer = np.asarray(head['kernel'], np.float64)[:, number] * np.asarray(norm['scale'], np.float64)
  inner = (outer - outer.mean() - unit * (unit * outer).mean(-1, keepdims=True)) / deviation
  return np.broadcast_to(inner[:, None, None, :] / (h * w), features.shape), unit


@pytest.mark.parametrize('method', METHODS)
def test_last_stage_by_hand(plain, last_stage, method):
  found, out = last_stage
  maps, scores = found[method]
  features = np.asarray(out['stage4'])
  params = plain[1]['params']
  gradient, unit = by_hand(features, params['head'], params['norm'], 3)
  pooled = unit * np.asarray(params['norm']['scale']) + np.asarray(params['norm']['bias'])
  np.testing.assert_allclose(
    scores, pooled @ params['head']['kernel'][:, 3] + params['head']['bias'][3], rtol=1e-3, atol=1e-4
  )
  if method == 'grad_cam':
    weights = gradient.mean((1, 2), keepdims=True)
  elif method == 'hirescam':
    weights = gradient
  else:
    share = gradient**2 / (2 * gradient**2 + features.sum((1, 2), keepdims=True) * gradient**3)
    weights = (share * np.maximum(gradient, 0)).sum((1, 2), keepdims=True)
  expected = np.maximum((weights * features).sum(-1), 0)
  assert expected.max() > 0 and maps.shape == (2, 2, 2)
  np.testing.assert_allclose(maps, expected, rtol=2e-3, atol=2e-3 * expected.max())


@pytest.mark.slow
def test_first_stage_by_differences(contextual):
  """Grad-CAM's weight of a channel is the derivative along the whole channel, over the number of positions.
  It passes through contexts and adaptive convolutions."""
  model, variables, images = contextual
  images, name, number = images[:1], 'stage1', 2
  run = jax.jit(lambda extra: model.apply(variables, images, train=False, add={name: extra})[1])
  shape = jax.eval_shape(lambda: model.apply(variables, images, train=False)[1][name]).shape
  features = run(jnp.zeros(shape))[name]
  compute = jax.jit(lambda i, c: class_activation_map(model, variables, i, c, 1))
  (a_map,), _ = compute(images, jnp.array([number]))
  weights = []
  for c in range(features.shape[-1]):
    step = 1e-2 * jnp.zeros(shape).at[..., c].set(1.0)
    ahead, behind = run(step), run(-step)
    for s in (2, 3, 4):  # a step so small that it changes no selection
      np.testing.assert_array_equal(ahead[f'considered{s}'], behind[f'considered{s}'])
    difference = float(ahead['scores4'][0, number] - behind['scores4'][0, number])
    weights.append(difference / 2e-2 / features[0, ..., 0].size)
  expected = np.maximum(np.asarray(features[0]) @ np.array(weights, np.float32), 0)
  assert expected.max() > 0.01
  np.testing.assert_allclose(a_map, expected, atol=0.02 * expected.max())


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ctx_convnext_mini', 'resnet_mini'])
def test_every_gradient_by_differences(request, name):
  """All methods at stage 3 from central differences at every position and channel. HiResCAM there is zero in
  a ConvNeXt, where a LayerNorm follows, but not in a ResNet."""
  convnext = name == 'ctx_convnext_mini'
  model, variables, images = request.getfixturevalue('contextual') if convnext else network(name)
  images, number, step = images[:1], 2, 1e-2
  compute = lambda i: [
    class_activation_map(model, variables, i, jnp.array([number]), 3, method)[0][0] for method in METHODS
  ]
  maps = dict(zip(METHODS, jax.jit(compute)(images), strict=True))
  _, h, w, c = jax.eval_shape(lambda: model.apply(variables, images, train=False)[1]['stage3']).shape
  steps = step * np.eye(h * w * c, dtype='f').reshape(-1, h, w, c)
  steps = np.concatenate([steps, -steps, np.zeros_like(steps[:1])])
  # Mapped over what is added alone, so that the stages before it are computed once.
  _, out = jax.jit(
    jax.vmap(lambda add: model.apply(variables, images, train=False, add={'stage3': add[None]}))
  )(steps)
  assert len(np.unique(out['considered4'], axis=0)) == 1  # no selection has changed
  features = np.asarray(out['stage3'][-1, 0], np.float64)
  scores = np.asarray(out['scores4'][:, 0, number], np.float64)
  gradient = ((scores[: h * w * c] - scores[h * w * c : -1]) / (2 * step)).reshape(h, w, c)
  share = gradient**2 / (2 * gradient**2 + features.sum((0, 1)) * gradient**3 + 1e-30)
  sums = {
    'grad_cam': features @ gradient.mean((0, 1)),
    'hirescam': (features * gradient).sum(-1),
    'grad_cam++': features @ (share * np.maximum(gradient, 0)).sum((0, 1)),
  }
  for method, total in sums.items():
    expected = np.maximum(total, 0)
    if convnext and method == 'hirescam':
      assert np.abs(total).max() < 0.01 * np.abs(features * gradient).sum(-1).min()
      expected = np.zeros_like(total)
    else:
      assert expected.max() > 0.01
    np.testing.assert_allclose(maps[method], expected, rtol=0.02, atol=0.02 * expected.max(), err_msg=method)


def test_what_cancels_is_not_drawn(plain, last_stage):
  """A LayerNorm follows stage 3, so that HiResCAM there is zero but for rounding and its epsilon, which
  counts where features are small: in trained networks up to 2e-4 of what is added up."""
  model, variables, images = plain
  maps = jax.jit(lambda i: class_activation_map(model, variables, i, jnp.array([0, 1]), 3, 'hirescam')[0])
  np.testing.assert_array_equal(maps(images), 0)
  assert last_stage[0]['hirescam'][0].max() > 0.01
  features = np.array([[[[1, -1 + 2e-4], [1, -0.9]]]], np.float32)
  found = class_activation.weigh(features, np.ones_like(features), 'hirescam')
  np.testing.assert_allclose(found, [[[0, 0.1]]], atol=1e-6)


def test_a_dropped_class_has_a_map():
  model, variables, images = drawn('ctx_convnext_mini', **CONVNEXT, **CONTEXTUAL)

  @jax.jit
  def compute(images):
    logits, out = model.apply(variables, images, train=False)
    dropped = jnp.isneginf(logits).argmax(-1)
    return logits, out, dropped, *class_activation_map(model, variables, images, dropped, 4, 'hirescam')

  logits, out, dropped, maps, scores = jax.tree.map(np.asarray, compute(images))
  assert np.isneginf(np.take_along_axis(logits, dropped[:, None], 1)).all()
  np.testing.assert_allclose(scores, np.take_along_axis(out['scores4'], dropped[:, None], 1)[:, 0], rtol=1e-5)
  assert np.isfinite(maps).all() and (maps.max((1, 2)) > 0).any()


@pytest.mark.slow
def test_images_do_not_see_one_another(contextual):
  model, variables, images = contextual
  compute = jax.jit(lambda i, c: class_activation_map(model, variables, i, c, 4)[0])
  together, alone = compute(images, jnp.array([1, 4])), compute(images[1:], jnp.array([4]))
  np.testing.assert_allclose(together[1:], alone, rtol=1e-4, atol=1e-5)


def test_gradients_of_zero_give_maps_of_zero():
  features, zeros = np.ones((1, 2, 2, 3), np.float32), np.zeros((1, 2, 2, 3), np.float32)
  for method in METHODS:
    np.testing.assert_array_equal(class_activation.weigh(features, zeros, method), np.zeros((1, 2, 2)))


def test_normalising_and_states():
  maps = np.array([[[0, 2], [1, 4]], [[0, 0], [0, 0]], [[3, 3], [3, 3]]], np.float32)
  found = class_activation.normalised(maps)
  np.testing.assert_allclose(found, [[[0, 0.5], [0.25, 1]], np.zeros((2, 2)), np.ones((2, 2))])
  assert [class_activation.state(m) for m in maps] == ['', 'zero', 'constant']
  assert class_activation.state(np.array([[5.0]])) == 'constant'


def test_upsampling():
  ramp = np.array([[[0.0, 4.0]] * 2])
  # Pixel centres of the large map lie at -1/4, 1/4, 3/4, 5/4 of the small one's pixels.
  np.testing.assert_allclose(class_activation.upsample(ramp, 4, 2)[0], [[0, 1, 3, 4]] * 4, atol=1e-6)
  np.testing.assert_allclose(class_activation.upsample(ramp, 2, 1), ramp)
  np.testing.assert_allclose(class_activation.upsample(np.full((1, 1, 1), 7.0), 3, 3), np.full((1, 3, 3), 7))
  # An image of 7 pixels has three strides of 2; its last pixel, which none covers, has the edge's value.
  steep = np.array([[[0.0, 4.0, 8.0]] * 3])
  np.testing.assert_allclose(
    class_activation.upsample(steep, 7, 2)[0], [[0, 1, 3, 5, 7, 8, 8]] * 7, atol=1e-6
  )


@pytest.mark.parametrize('name, keywords', [('convnext_mini', {'stem_stride': 2}), ('resnet_mini', {})])
def test_strides(name, keywords):
  model = create_model(name, **TINY, **keywords)
  images = jax.ShapeDtypeStruct((1, 128, 128, 3), jnp.float32)
  (_, out), _ = jax.eval_shape(lambda i: model.init_with_output(jax.random.key(0), i, train=False), images)
  for stage in (1, 2, 3, 4):
    assert model.strides[stage - 1] * out[f'stage{stage}'].shape[1] == 128


def test_the_last_stage_with_a_map():
  def apply(_, images):
    side = images.shape[1]
    return None, {
      f'stage{s}': jnp.zeros((1, side // 2 ** (s + 1), side // 2 ** (s + 1), 3)) for s in (1, 2, 3, 4)
    }

  model = types.SimpleNamespace(dims=(3, 3, 3, 3), example_shape=lambda side: (side, side, 3))
  run = types.SimpleNamespace(variables={}, apply=apply, model=model)
  found = [class_activation.last_stage_with_a_map(run, side) for side in (224, 128, 64, 32, 8)]
  assert found == [4, 4, 3, 2, 1]
