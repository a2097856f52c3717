"""The table of networks: how many parameters each has, how they are called, and the maps of big images."""

import functools
import re

import flax.linen
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import CONTEXTUAL_BLOCKS, PARAMETERS, slow_unless
from torch_names import variable_from_torch

from ctx_flax.models import MODELS, create_model

SHORT = 'ctx_convnext_t', 'ctx_resnet50', *(name for name in MODELS if name.endswith('mini'))


@functools.cache
def shapes(name):
  model = create_model(name)
  images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  (_, out), variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
  return variables, out


def test_every_model_has_a_row():
  assert set(PARAMETERS) == set(MODELS)
  assert set(CONTEXTUAL_BLOCKS) == {name for name in MODELS if name.startswith('ctx_')}


@pytest.mark.parametrize('name', slow_unless(MODELS, *SHORT))
def test_parameter_count(name):
  params = shapes(name)[0]['params']
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[name]


@pytest.mark.parametrize('name', slow_unless(CONTEXTUAL_BLOCKS, *SHORT))
def test_contextual_blocks(name):
  out = shapes(name)[1]
  for kind in ('offsets', 'mask', 'kernel_delta'):
    assert set(out[kind]) == set(CONTEXTUAL_BLOCKS[name].split()), kind


@pytest.mark.parametrize(
  'table, name, family',
  [('ctx_convnext_tiny', 'ctx_convnext_t', 'convnext'), ('ctx_r50', 'ctx_resnet50', 'resnet')],
)
def test_names_and_shapes_of_the_released_checkpoints(keys, table, name, family):
  ours = flax.traverse_util.flatten_dict(shapes(name)[0])
  found = {}
  for line in (keys / f'{table}.txt').read_text().splitlines():
    if line.startswith('#') or 'num_batches_tracked' in line:
      continue
    key, shape, _ = line.split('\t')
    shape = tuple(int(n) for n in re.findall(r'\d+', shape))
    path, value = variable_from_torch(key, np.broadcast_to(np.float32(0), shape), family)
    found[path] = value.shape
  assert found == {path: leaf.shape for path, leaf in ours.items()}


@pytest.mark.parametrize('size', [pytest.param((448, 448), marks=pytest.mark.slow), (800, 1333)])
@pytest.mark.parametrize('name', slow_unless(['ctx_convnext_t', 'ctx_resnet50'], 'ctx_convnext_t'))
def test_feature_maps_of_detectors(name, size):
  """The four strides at large sizes, with no parameters that features do not need."""
  model = create_model(name)
  images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
  variables = jax.eval_shape(functools.partial(model.init, features_only=True), jax.random.key(0), images)
  valid_hw = jax.ShapeDtypeStruct((2, 2), jnp.int32)
  apply = functools.partial(model.apply, features_only=True)
  _, out = jax.eval_shape(lambda v, x, hw: apply(v, x, valid_hw=hw), variables, images, valid_hw)
  for stage, stride in ((1, 4), (2, 8), (3, 16), (4, 32)):
    down = (lambda n, s: n // s) if 'convnext' in name else (lambda n, s: -(-n // s))
    channels = model.dims[stage - 1] * (1 if 'convnext' in name else 4)
    assert out[f'stage{stage}'].shape == (2, down(size[0], stride), down(size[1], stride), channels)
  assert set(shapes(name)[0]['params']) == set(variables['params'])
  unused = set(shapes(name)[0]['params']['contextualizer']) - set(variables['params']['contextualizer'])
  assert unused == {'head4'}
