"""Networks of clips: TSM's released code, and what a contextual network decides on a clip."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from initial_values import initial_values, moved
from networks import CONTEXTUAL, TINY, slow_unless

from ctx_flax.models import create_model
from ctx_flax.models.class_funnel import log_mean_probability
from ctx_flax.models.inference import apply_in_turn
from ctx_flax.torch_weights import load_torch_weights

T = 4


def clip_network(name='ctx_resnet_mini', **keywords):
  """(model, variables, clips): two clips of four frames of 32 px."""
  contextual = CONTEXTUAL if name.startswith('ctx_') else {}
  clips = np.random.default_rng(2).standard_normal((2, T, 32, 32, 3), np.float32)
  # The parameters are those of the network of images: what a clip makes of its frames has none.
  variables = moved(initial_values(create_model(name, **TINY, **contextual)), 0.2)
  return create_model(name, segments=T, **TINY, **contextual, **keywords), variables, clips


@functools.partial(jax.jit, static_argnums=0)
def run(model, variables, clips, **keywords):
  return model.apply(variables, clips, train=False, **keywords)


def released(golden, **keywords):
  """The network of TSM's code with its parameters and two clips of eight frames."""
  arrays = golden('video/small_resnet')
  model = create_model(
    'resnet_mini', depths=(1, 2, 2, 1), dims=(16, 16, 32, 64), num_classes=7, segments=8, **keywords
  )
  state = {named(name.removeprefix('state/')): v for name, v in arrays.items() if name.startswith('state/')}
  return arrays, model, load_torch_weights(state, model)


def named(name):
  """As in a published checkpoint."""
  head = name.startswith('fc.')
  return f'module.new_{name}' if head else f'module.base_model.{name}'


def test_the_released_code(golden):
  arrays, model, variables = released(golden)
  logits, out = run(model, variables, arrays['clips'])
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
  close(logits, arrays['clip_logits'])
  for stage in (1, 2, 3, 4):
    close(out[f'stage{stage}'].mean((2, 3)), arrays[f'stage{stage}_mean'])
  fc = variables['params']['fc']
  head = lambda x: np.asarray(x) @ np.asarray(fc['kernel']) + np.asarray(fc['bias'])
  close(head(out['pre_logits']), arrays['frame_logits'])
  close(run(model, variables, arrays['clips'][:, ::-1])[0], arrays['reversed_clip_logits'])
  still = model.clone(temporal_shift=False)
  close(run(still, variables, arrays['clips'])[0], arrays['plain_clip_logits'])


@pytest.mark.slow
def test_gradients_of_the_released_code(golden):
  arrays, model, variables = released(golden)
  expected = golden('video/small_resnet_gradients')

  def loss(params):
    logits, _ = model.apply({**variables, 'params': params}, arrays['clips'], train=False)
    return -jax.nn.log_softmax(logits)[jnp.arange(2), expected['labels']].mean()

  value, gradients = jax.jit(jax.value_and_grad(loss))(variables['params'])
  np.testing.assert_allclose(value, expected['loss'], rtol=1e-5)
  state = {named(name.removeprefix('grad/')): v for name, v in expected.items() if name.startswith('grad/')}
  state |= {
    named(name.removeprefix('state/')): np.zeros_like(v) for name, v in arrays.items() if 'running' in name
  }
  theirs = load_torch_weights(state, model)['params']
  for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
    other = functools.reduce(lambda tree, key: tree[key.key], path, theirs)
    scale = np.abs(other).max()
    np.testing.assert_allclose(gradient, other, rtol=1e-4, atol=1e-4 * scale, err_msg=str(path))


def test_what_is_of_frames_and_what_of_clips():
  model, variables, clips = clip_network()
  logits, out = run(model, variables, clips)
  assert logits.shape == (2, 5) and out['stage2'].shape == (2, T, 4, 4, 48)
  assert out['pre_logits'].shape == (2, T, 96) and out['offsets']['2.0'].shape[:2] == (2, T)
  for stage in (1, 2, 3, 4):
    assert all(out[f'{name}{stage}'].shape == (2, 5) for name in ('scores', 'logits', 'considered', 'alive'))
  np.testing.assert_array_equal(out['considered3'].sum(-1), [3, 3])
  assert out['context3'].shape == (2, 12)


def test_a_clip_decides_by_the_mean_of_its_frames():
  """Every stage's scores are the mean of what its head says of each frame, and so is the selection."""
  model, variables, clips = clip_network()
  _, out = run(model, variables, clips)
  layers = model.make_contextualizer(parent=None)
  params = {name: values['contextualizer'] for name, values in variables.items()}

  @jax.jit
  def scored_and_kept(out):
    scored, kept = {}, {}
    for stage in (1, 2, 3):
      maps = out[f'stage{stage}'].reshape(2 * T, *out[f'stage{stage}'].shape[2:])
      scored[stage] = layers.apply(params, maps, stage, method='score').reshape(2, T, -1).mean(1)
      scores, considered = out[f'scores{stage}'], out[f'considered{stage}']
      kept[stage + 1] = layers.apply(params, scores, considered, stage, method='select')
    return scored, kept

  scored, kept = scored_and_kept(out)
  for stage, scores in scored.items():
    np.testing.assert_allclose(out[f'scores{stage}'], scores, rtol=1e-4, atol=1e-4)
  for stage, considered in kept.items():
    np.testing.assert_array_equal(out[f'considered{stage}'], considered)


def test_frames_decide_for_themselves():
  """Without shift the frames of a clip are then so many images."""
  model, variables, clips = clip_network(context='frame', temporal_shift=False)
  logits, out = run(model, variables, clips)
  images = model.clone(segments=1)
  of_images, each = run(images, variables, clips.reshape(-1, 32, 32, 3))
  for name in ('scores2', 'considered3', 'alive4', 'context4', 'logits4'):
    value = np.asarray(each[name]).reshape(2, T, -1)
    np.testing.assert_allclose(out[name], value, rtol=1e-4, atol=1e-4, err_msg=name)
  probabilities = np.asarray(jax.nn.softmax(of_images)).reshape(2, T, -1).mean(1)
  np.testing.assert_allclose(np.exp(logits), probabilities, rtol=1e-4, atol=1e-6)


def test_one_context_serves_all_frames_and_not_in_the_other_mode():
  """Other frames of a clip change a frame's kernels through the context, where a clip has one.

  A context is of the classes that the stage considers: the last one considers others for other frames.
  """
  changed = {}
  for context in ('clip', 'frame'):
    model, variables, clips = clip_network(context=context, temporal_shift=False)
    other = np.concatenate([clips[:, :1], -2 * clips[:, 1:]], 1)
    deltas = [np.asarray(run(model, variables, x)[1]['kernel_delta']['4.0'])[:, 0] for x in (clips, other)]
    changed[context] = bool(np.any(deltas[0] != deltas[1]))
  assert changed == {'clip': True, 'frame': False}


# Of a plain network the released code says as much.
@pytest.mark.parametrize('name', slow_unless(['resnet_mini', 'ctx_resnet_mini'], 'ctx_resnet_mini'))
def test_only_the_shift_tells_a_clip_from_its_reverse(name):
  for shifted in (True, False):
    model, variables, clips = clip_network(name, temporal_shift=shifted)
    forwards, backwards = (np.asarray(run(model, variables, x)[0]) for x in (clips, clips[:, ::-1]))
    finite = np.isfinite(forwards)
    distance = np.abs(forwards[finite] - backwards[finite]).max()
    assert distance > 1e-2 if shifted else distance < 1e-4


def test_log_mean_probability_by_hand():
  logits = jnp.log(jnp.array([[0.5, 0.5, 0], [0.25, 0, 0.75], [1, 0, 0], [1, 0, 0]]))

  def of_first(x):
    mean = log_mean_probability(x, 2)
    return mean[:, 0].sum(), mean

  gradient, mean = jax.jit(jax.grad(of_first, has_aux=True))(logits)
  np.testing.assert_allclose(np.exp(mean), [[0.375, 0.25, 0.375], [1, 0, 0]], atol=1e-6)
  assert np.all(np.isfinite(gradient))


@pytest.mark.slow
def test_remat_and_parts():
  model, variables, clips = clip_network()
  logits, out = run(model, variables, clips)
  in_turn = jax.jit(lambda x: apply_in_turn(model, variables, x, at_once=1))(clips)
  for other in (in_turn, run(model.clone(remat=True), variables, clips)):
    np.testing.assert_allclose(other[0], logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(other[1]['stage3'], out['stage3'], rtol=1e-3, atol=1e-3)


def test_padding():
  model, variables, clips = clip_network()
  logits, _ = run(model, variables, clips)
  padded = np.pad(clips, [(0, 0)] * 2 + [(0, 32)] * 2 + [(0, 0)], constant_values=3.0)
  masked, _ = run(model, variables, padded, valid_hw=np.full((2, 2), 32, np.int32))
  np.testing.assert_allclose(masked, logits, rtol=1e-4, atol=1e-4)


def test_dropout_is_of_the_last_head_alone():
  model, variables, clips = clip_network('resnet_mini', dropout=0.5)

  @jax.jit
  def train(key):
    return model.apply(variables, clips, train=True, train_norm=False, rngs={'dropout': key})

  (first, out), (second, _), (still, expected) = (
    train(jax.random.key(0)),
    train(jax.random.key(1)),
    run(model, variables, clips),
  )
  np.testing.assert_allclose(out['pre_logits'], expected['pre_logits'], rtol=1e-4, atol=1e-4)
  assert np.any(first != second) and np.any(first != still)


@pytest.mark.slow
def test_added_to_the_frames_of_a_stage():
  model, variables, clips = clip_network()
  _, out = run(model, variables, clips)
  extra = jnp.zeros(out['stage4'].shape).at[0, 1].set(0.5)
  _, other = run(model, variables, clips, add={'stage4': extra})
  np.testing.assert_allclose(other['stage4'] - out['stage4'], extra, atol=1e-4)
  assert np.any(other['scores4'][0] != out['scores4'][0])
  np.testing.assert_array_equal(other['scores4'][1], out['scores4'][1])


def test_wrong_clips_and_attributes_are_named():
  model, variables, clips = clip_network()
  with pytest.raises(
    ValueError, match=r'images have shape \(4, 32, 32, 3\); expected clips .* segments is 4'
  ):
    model.apply(variables, clips[0])
  with pytest.raises(ValueError, match=r'clips have 3 frames; this network takes 4'):
    model.apply(variables, clips[:, :3])
  with pytest.raises(ValueError, match=r'images have shape \(2, 4, 32, 32, 3\); expected \(b, h, w, c\)'):
    model.clone(segments=1).apply(variables, clips)
  with pytest.raises(ValueError, match='convnext_mini: segments=8: expected 1, as ConvNeXt takes images'):
    create_model('convnext_mini', segments=8)
  with pytest.raises(ValueError, match=r"context='frames': expected one of .*did you mean"):
    create_model('ctx_resnet_mini', context='frames')
  with pytest.raises(ValueError, match="plain network, which has no use for context='frame'"):
    create_model('resnet_mini', context='frame')
  with pytest.raises(ValueError, match=r'dropout=1: expected .*at least 0 and below 1'):
    create_model('resnet_mini', dropout=1)
