"""Our layers against golden.npz, an independent float64 NumPy derivation (make_golden.py), in every clone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from make_golden import PATH

from ctx_flax.layers import BatchNorm, ContextualConv, Contextualizer

TOLERANCE = 2e-5  # of an array's largest absolute value, at least 1


@pytest.fixture(scope='module')
def data():
  with np.load(PATH) as archive:
    return {key: archive[key] for key in archive.files}


def part(data, prefix):
  return {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}


def variables_of(data, case):
  params, stats = {}, {}
  for name, value in part(data, f'{case}/param/').items():
    (stats if name.rpartition('/')[2] in ('mean', 'var') else params)[tuple(name.split('/'))] = jnp.asarray(
      value
    )
  return {'params': unflatten_dict(params), **({'batch_stats': unflatten_dict(stats)} if stats else {})}


def assert_near(actual, expected, what):
  assert np.shape(actual) == expected.shape, what
  error = np.abs(np.subtract(actual, expected, dtype=np.float64)).max() / max(1.0, np.abs(expected).max())
  assert error <= TOLERANCE, f'{what}: {error:.1e}'


LAYERS = {
  'depthwise': ContextualConv(6, 5, depthwise=True, branch_dim=4),
  'dense': ContextualConv(5, 3, 2, use_bias=False, branch_dim=4, norm=BatchNorm),
}


@pytest.mark.parametrize('case, mode', [('depthwise', 'eval'), ('dense', 'eval'), ('dense', 'train')])
def test_contextual_conv(data, case, mode):
  inputs = part(data, f'{case}/in/')
  apply = jax.jit(functools.partial(LAYERS[case].apply, train=mode == 'train', mutable=['batch_stats']))
  (y, adaptation), new = apply(variables_of(data, case), inputs['x'], inputs['context'])
  ours = {'y': y, **adaptation}
  for path, value in jax.tree_util.tree_leaves_with_path(new['batch_stats'] if mode == 'train' else {}):
    ours['after/' + '/'.join(key.key for key in path)] = value
  expected = part(data, f'{case}/{mode}/')
  assert set(ours) == set(expected)
  for name, value in expected.items():
    assert_near(ours[name], value, name)


@pytest.mark.parametrize('selection', ['reduction', 'rerank'])
def test_contextualizing_layers(data, selection):
  module = Contextualizer(12, (8, 5, 3), (4, 5, 6, 7), (4, 5, 6), embed_dim=8, selection=selection)

  def run(module, features):
    out, considered = {}, jnp.ones((4, 12), bool)
    for stage, x in enumerate(features, 1):
      out[f'scores{stage}'], out[f'considered{stage}'] = module.score(x, stage), considered
      if stage < 4:
        considered = module.select(out[f'scores{stage}'], considered, stage)
        out[f'context{stage + 1}'] = module.context(considered, stage + 1)
    return out

  features = [data[f'classes/in/x{stage}'] for stage in (1, 2, 3, 4)]
  ours = jax.jit(functools.partial(module.apply, method=run))(variables_of(data, 'classes'), features)
  expected = part(data, f'classes/{selection}/')
  assert set(ours) == set(expected)
  for name, value in expected.items():
    assert_near(ours[name], value, name)
