"""Class activation maps against gradients by hand and by differences, and the mode from end to end."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_files import make_run
from test_loop import tiny_config

from ctx_flax.analysis import class_activation, grad_cam, grad_cam_figures
from ctx_flax.analysis.class_activation import METHODS, class_activation_map
from ctx_flax.analysis.images import Images
from ctx_flax.models import create_model
from ctx_flax.training.halt import Halt

TINY = {
  'num_classes': 5,
  'depths': (1, 1, 1, 1),
  'dims': (8, 12, 16, 24),
  'stem_stride': 2,
  'layer_scale_init': 0.5,
}


def network(name):
  """(model, variables, images): two images of 32 px, whose stages have maps of 16, 8, 4 and 2 pixels."""
  model = create_model(name, embed_dim=16, **TINY, **({'class_counts': (4, 3, 2)} if 'ctx' in name else {}))
  images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
  variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))
  rng = np.random.default_rng(0)
  return model, jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape).astype('f'), variables), images


@pytest.fixture(scope='module')
def plain():
  return network('convnext_mini')


@pytest.fixture(scope='module')
def contextual():
  return network('ctx_convnext_mini')


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
def test_last_stage_by_hand(plain, method):
  model, variables, images = plain
  maps, scores = jax.jit(lambda i: class_activation_map(model, variables, i, jnp.array([3, 3]), 4, method))(
    images
  )
  _, out = model.apply(variables, images, train=False)
  features = np.asarray(out['stage4'])
  params = variables['params']
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


@pytest.mark.parametrize('stage', [1, 3])
def test_early_stages_by_differences(contextual, stage):
  """Grad-CAM's weight of a channel is the derivative along the whole channel, over the number of positions.
  It passes through contexts and adaptive convolutions."""
  model, variables, images = contextual
  images, name, number = images[:1], f'stage{stage}', 2
  run = jax.jit(lambda extra: model.apply(variables, images, train=False, add={name: extra})[1])
  features = model.apply(variables, images, train=False)[1][name]
  compute = jax.jit(lambda i, c: class_activation_map(model, variables, i, c, stage))
  (a_map,), _ = compute(images, jnp.array([number]))
  weights = []
  for c in range(features.shape[-1]):
    step = 1e-2 * jnp.zeros_like(features).at[..., c].set(1.0)
    ahead, behind = run(step), run(-step)
    for s in (2, 3, 4):  # a step so small that it changes no selection
      np.testing.assert_array_equal(ahead[f'considered{s}'], behind[f'considered{s}'])
    difference = float(ahead['scores4'][0, number] - behind['scores4'][0, number])
    weights.append(difference / 2e-2 / features[0, ..., 0].size)
  expected = np.maximum(np.asarray(features[0]) @ np.array(weights, np.float32), 0)
  assert expected.max() > 0.01
  np.testing.assert_allclose(a_map, expected, atol=0.02 * expected.max())


def test_rounding_is_not_drawn(plain):
  """A LayerNorm follows stage 3, so that HiResCAM there is zero but for rounding."""
  model, variables, images = plain
  compute = lambda stage: jax.jit(
    lambda i: class_activation_map(model, variables, i, jnp.array([0, 1]), stage, 'hirescam')[0]
  )(images)
  np.testing.assert_array_equal(compute(3), 0)
  assert compute(4).max() > 0.01


def test_a_dropped_class_has_a_map(contextual):
  model, variables, images = contextual
  logits, out = jax.jit(lambda i: model.apply(variables, i, train=False))(images)
  dropped = jnp.isneginf(logits).argmax(-1)
  maps, scores = jax.jit(lambda i, c: class_activation_map(model, variables, i, c, 4, 'hirescam'))(
    images, dropped
  )
  np.testing.assert_allclose(scores, np.take_along_axis(out['scores4'], dropped[:, None], 1)[:, 0], rtol=1e-5)
  assert np.isfinite(maps).all() and (np.asarray(maps).max((1, 2)) > 0).any()


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
  np.testing.assert_allclose(class_activation.upsample(ramp, 4)[0], [[0, 1, 3, 4]] * 4, atol=1e-6)
  np.testing.assert_allclose(class_activation.upsample(ramp, 2), ramp)
  np.testing.assert_allclose(class_activation.upsample(np.full((1, 1, 1), 7.0), 3), np.full((1, 3, 3), 7))


def test_rivals():
  images = Images(np.zeros((3, 1, 1, 3)), None, np.array([0, 1, -1]), ('a', 'b', 'c'))
  first = {
    'probabilities': np.array([[0.5, 0.3, 0.2], [0.2, 0.8, 0.0], [0.1, 0.0, 0.9]]),
    'scores': np.zeros((3, 3)),
  }
  second = {
    'probabilities': np.array([[0.5, 0.1, 0.4], [0.0, 1.0, 0.0], [0.1, 0.0, 0.9]]),
    'scores': np.zeros((3, 3)),
  }
  chosen = grad_cam.chosen_classes(images, {'ctx': first, 'plain': second})
  # The second network's 0.4 is the strongest of all; the last image is not known, the answer takes its place.
  assert chosen.tolist() == [[0, 2], [1, 0], [2, 0]]
  # Where all others were dropped, the scores decide.
  alone = {'probabilities': np.array([[1.0, 0, 0]]), 'scores': np.array([[9.0, -2, -1]])}
  one = Images(np.zeros((1, 1, 1, 3)), None, np.array([0]), ('a',))
  assert grad_cam.chosen_classes(one, {'ctx': alone}).tolist() == [[0, 2]]
  assert grad_cam.chosen_classes(images, {'ctx': first}, (2, 1)).tolist() == [[2, 1]] * 3


def test_classes_by_name_and_number():
  names = ('cat', 'dog', '1', 'owl')
  assert [grad_cam.class_number(given, names) for given in ('dog', 3, '0', '1')] == [1, 3, 0, 2]
  with pytest.raises(ValueError, match=r"holds 'dogg', which is no class of this run; did you mean 'dog'\?"):
    grad_cam.class_number('dogg', names)
  with pytest.raises(ValueError, match='holds 17, which is no class'):
    grad_cam.class_number(17, names)


def test_figure():
  maps = np.array([[[[0, 1], [0, 1]], [[0, 0], [0, 0]]]], np.float32)
  found = {
    'classes': np.array([[0, 1]]),
    'maps': {'ctx': maps, 'plain': maps},
    'states': {'ctx': [['', 'zero']], 'plain': [['', 'zero']]},
    'probabilities': {'ctx': np.array([[0.93, 0.0]]), 'plain': np.array([[0.4, 0.0]])},
    'dropped': {'ctx': np.array([[0, 3]]), 'plain': np.array([[0, 0]])},
  }
  images = Images(np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 8, 8, 3), np.uint8), np.array([0]), ('a',))
  stages = {'ctx': 3, 'plain': 4}
  figure = grad_cam_figures.overlays(images, found, ('cat', 'dog'), stages, 'hirescam')
  titles = [axes.get_title().strip().split('\n') for axes in figure.axes]
  assert titles[:5] == [
    ['is cat'],
    ['ctx', 'cat: 93 %'],
    ['dog: out at stage 3'],
    ['plain', 'cat: 40 %'],
    ['dog: 0 %'],
  ]
  assert [axes.get_xlabel() for axes in figure.axes[1:3]] == ['', 'map is zero']
  # The image and the map over it, at the image's resolution; nothing over it where there is nothing to show.
  assert [len(axes.images) for axes in figure.axes[:3]] == [1, 2, 1]
  assert figure.axes[1].images[1].get_array().shape == (8, 8)
  assert figure.axes[-1].get_ylabel() == 'of the highest value of the map'
  assert 'hirescam at stage 3, stage 4' in figure.get_suptitle()


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  root = tmp_path_factory.mktemp('grad_cam')
  config, plain = tiny_config(), tiny_config()
  plain.model.name, plain.model.class_counts = 'convnext_mini', ()
  make_run(plain, root / 'plain')
  config.grad_cam.update(indices=(0, 200), steps=3, plain=str(root / 'plain'))
  return config, make_run(config, root / 'run')


def test_two_runs(runs, capsys):
  config, workdir = runs
  found = grad_cam.grad_cam(config, workdir)
  assert set(found['maps']) == {'ctx_convnext_mini', 'convnext_mini'}
  for name, maps in found['maps'].items():
    # Images of 32 px: stage 1 is the last with a map of at least 4 x 4 but for stage 2, which has just that.
    assert maps.shape == (2, 2, 4, 4) and len(found['curves'][name]) == 2
  assert 'area of deletion' in capsys.readouterr().out
  written = json.loads((workdir / 'analysis' / 'grad_cam.json').read_text())
  assert written['stages'] == {'ctx_convnext_mini': 2, 'convnext_mini': 2}
  area = written['areas']['convnext_mini']['deletion']['map'][0]
  curve = found['curves']['convnext_mini'][0]['deletion']['map']
  np.testing.assert_allclose(area, (curve[0] / 2 + curve[1] + curve[2] + curve[3] / 2) / 3, rtol=1e-5)
  # With nothing removed the probability is what the table says.
  np.testing.assert_allclose(curve[0], found['probabilities']['convnext_mini'][0, 0], rtol=1e-4)
  for name in ('grad_cam', 'grad_cam_curves'):
    assert {f'{name}.png', f'{name}.svg'} <= {path.name for path in (workdir / 'analysis').iterdir()}
  with np.load(workdir / 'analysis' / 'grad_cam.npz') as arrays:
    np.testing.assert_array_equal(arrays['convnext_mini'], found['maps']['convnext_mini'])


def test_one_run_given_classes_and_a_map_of_one_pixel(runs, capsys):
  config = runs[0].copy_and_resolve_references()
  config.grad_cam.update(plain='', steps=0, stage=4, classes=('7', '2', '3'), method='grad_cam++')
  found = grad_cam.grad_cam(config, runs[1])
  assert found['classes'].tolist() == [[7, 2, 3]] * 2 and found['areas'] == {}
  states = {state for row in found['states']['ctx_convnext_mini'] for state in row}
  assert states <= {'constant', 'zero'}
  assert 'map constant' in capsys.readouterr().out or 'constant' not in states


@pytest.mark.parametrize(
  'options, message',
  [
    ({'stage': 5}, r'grad_cam\.stage is 5: it must be'),
    (
      {'method': 'gradcam'},
      r"grad_cam\.method is 'gradcam': it must be one of grad_cam, hirescam, grad_cam\+\+",
    ),
    ({'indices': (400,)}, r'grad_cam\.indices is \(400,\): the test images are 0 to 359'),
    ({'classes': ('x',)}, "holds 'x', which is no class"),
    ({'steps': -1}, r'grad_cam\.steps must be 0'),
    ({'plain': '/nowhere'}, r"grad_cam\.plain is '/nowhere', which holds no config"),
  ],
)
def test_wrong_input(runs, options, message):
  config = runs[0].copy_and_resolve_references()
  config.grad_cam.update(options)
  with pytest.raises(Halt, match=message) as halted:
    grad_cam.grad_cam(config, runs[1])
  assert halted.value.status == 2


def test_the_last_stage_with_a_map(runs):
  def run_of(side):
    shapes = {
      f'stage{s}': jnp.zeros((1, side // 2 ** (s + 1), side // 2 ** (s + 1), 3)) for s in (1, 2, 3, 4)
    }
    config = types.SimpleNamespace(data=types.SimpleNamespace(image_size=side))
    return types.SimpleNamespace(config=config, variables={}, apply=lambda _, images: (None, shapes))

  found = [class_activation.last_stage_with_a_map(run_of(side)) for side in (224, 64, 32, 8)]
  assert found == [4, 3, 2, 1]
