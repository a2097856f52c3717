"""PyTorch weights: names and shapes of checkpoints, there and back, starting from plain ones, misfits."""

import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy
from golden_networks import NETWORKS, network, part
from networks import SMALL, slow_unless, small
from torch_names import variables_from_torch

from ctx_flax.models import create_model
from ctx_flax.torch_weights import load_torch_weights, to_torch

OWN_KEYS = pathlib.Path(__file__).parent / 'keys'


def read_keys(path):
  rows = [line.split('\t') for line in path.read_text().splitlines() if not line.startswith('#')]
  return {name: tuple(int(n) for n in shape.strip('()').split(',') if n.strip()) for name, shape, _ in rows}


TABLES = {
  'torchvision_convnext_tiny': ('convnext_t', 'torchvision', {}),
  'timm_convnext_tiny': ('convnext_t', 'timm', {}),
  'torchvision_resnet50': ('resnet50', 'torchvision', {}),
  'facebook_convnext_tiny': ('convnext_t', 'facebook', {}),
  'timm_resnet50': ('resnet50', 'timm', {}),
  'ctx_convnext_tiny': ('ctx_convnext_t', 'authors', {'class_selection': 'rerank'}),
  'ctx_r50': ('ctx_resnet50', 'authors', {'class_selection': 'rerank'}),
}


# The authors' names are also those of their small networks, whose values are looked at below.
@pytest.mark.parametrize(
  'table', slow_unless(TABLES, *(table for table in TABLES if not table.startswith('ctx_')))
)
def test_names_and_shapes_of_checkpoints(request, table):
  own = OWN_KEYS / f'{table}.txt'
  path = own if own.exists() else request.getfixturevalue('keys') / f'{table}.txt'
  shapes = read_keys(path)
  name, source, keywords = TABLES[table]
  model = create_model(name, **keywords)
  state = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
  variables = load_torch_weights(state, model)
  assert {key: value.shape for key, value in to_torch(variables, model, source).items()} == shapes


@pytest.mark.parametrize(
  'name, source',
  [
    *((f'{family}_mini', source) for family in ('convnext', 'resnet') for source in ('timm', 'torchvision')),
    ('convnext_mini', 'facebook'),
    ('ctx_convnext_mini', 'authors'),
    ('ctx_resnet_mini', 'authors'),
  ],
)
def test_there_and_back_changes_no_bit(name, source, tmp_path):
  model, variables = small(name)
  state = to_torch(variables, model, source)
  path = tmp_path / 'weights.safetensors'
  safetensors.numpy.save_file({key: np.asarray(value, order='C') for key, value in state.items()}, path)
  again = load_torch_weights(path, model)
  assert jax.tree.structure(again) == jax.tree.structure(variables)
  jax.tree.map(np.testing.assert_array_equal, again, variables)
  twice = to_torch(again, model, source)
  assert twice.keys() == state.keys()
  for key, value in state.items():
    np.testing.assert_array_equal(twice[key], value, strict=True)


@pytest.mark.parametrize('name', NETWORKS)
def test_values_of_the_authors_networks(golden, name):
  """As the tests' own reading of the names, with which whole networks give the authors' outputs."""
  state, (family, _) = part(golden(name), 'param/'), NETWORKS[name]
  loaded = load_torch_weights(state, network(family, 'rerank'))
  jax.tree.map(np.testing.assert_array_equal, loaded, variables_from_torch(state, family))


@pytest.mark.slow
@pytest.mark.parametrize('family', ['convnext', 'resnet'])
def test_plain_weights_start_a_contextual_network_as_the_plain_one(family):
  plain, variables = small(f'{family}_mini')
  contextual, _ = small(f'ctx_{family}_mini', mask_gain=2.0)
  state = to_torch(variables, plain, 'torchvision')
  started = load_torch_weights(state, contextual, allow_missing=('contextual', 'head'))
  images = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
  _, expected = jax.jit(plain.apply)(variables, images)
  _, found = jax.jit(contextual.apply)(started, images)
  for stage in ('stage1', 'stage2', 'stage3', 'stage4'):
    assert np.abs(expected[stage]).max() > 0.1
    np.testing.assert_allclose(found[stage], expected[stage], rtol=1e-4, atol=1e-4, err_msg=stage)


def test_another_number_of_classes_starts_the_head_anew():
  model, variables = small('convnext_mini')
  many = to_torch(variables, model, 'facebook') | {
    'head.weight': np.ones((21841, 64), np.float32),
    'head.bias': np.ones(21841, np.float32),
  }
  loaded = load_torch_weights(
    many, create_model('convnext_mini', **SMALL['convnext_mini'] | {'num_classes': 21841})
  )
  assert loaded['params']['head']['kernel'].shape == (64, 21841)
  anew = load_torch_weights(many, model, allow_missing='head', initial=variables)
  jax.tree.map(np.testing.assert_array_equal, anew, variables)
  drawn = load_torch_weights(many, model, allow_missing='head/.*')
  assert 0.01 < np.std(drawn['params']['head']['kernel']) < 0.03  # as at the start of training


def test_every_kind_of_misfit_is_told_at_once():
  model, variables = small('convnext_mini')
  state = to_torch(variables, model, 'timm')
  state['stem.7.weight'] = state.pop('stem.0.weight')
  del state['stages.1.blocks.1.norm.bias']
  state['head.fc.weight'] = state['head.fc.weight'][:, :5]
  state['extra'] = np.zeros(3)
  with pytest.raises(ValueError) as told:
    load_torch_weights(state, model)
  message = str(told.value)
  block, stem = (
    'stages.1.blocks.1.norm.bias (here params/stage2_block1/norm/bias)',
    'stem.0.weight (here params/',
  )
  assert f'missing (2): {block}, {stem}' in message
  assert 'left over (2): extra, stem.7.weight' in message
  assert 'head.fc.weight (here params/head/kernel) is (5, 10) there and (64, 10) here' in message
  assert 'allow_missing' in message


WRONG = {
  'a plain head left over': (
    lambda: ('convnext_mini', 'facebook', 'ctx_convnext_mini', {'allow_missing': 'contextual'}),
    r'left over \(4\): head.bias .*norm.weight',
  ),
  'another family': (
    lambda: ('resnet_mini', 'timm', 'convnext_mini', {}),
    "torchvision's ResNet, which do not fit a ConvNeXt",
  ),
  'a pattern of nothing': (
    lambda: ('convnext_mini', 'timm', 'convnext_mini', {'allow_missing': ('contextaul',)}),
    "'contextaul', which is none of contextual, head, detector and matches no parameter",
  ),
  'no regex': (
    lambda: ('convnext_mini', 'timm', 'convnext_mini', {'allow_missing': '('}),
    "'\\('.*no regular",
  ),
  'no such entry': (
    lambda: ('convnext_mini', 'timm', 'convnext_mini', {'entry': 'ema'}),
    "no entry 'ema': it holds .* and 59 more",
  ),
}


@pytest.mark.parametrize('case', WRONG)
def test_weights_that_cannot_be_taken(case):
  arguments, message = WRONG[case]
  theirs, source, ours, keywords = arguments()
  model, variables = small(theirs)
  state = to_torch(variables, model, source)
  with pytest.raises(ValueError, match=message):
    load_torch_weights(state, small(ours)[0], **keywords)


def test_reranking_weights_are_not_taken_for_reduction():
  model, variables = small('ctx_convnext_mini')
  state = to_torch(variables, model, 'authors')
  with pytest.raises(ValueError, match="class_selection='rerank'"):
    load_torch_weights(state, small('ctx_convnext_mini', class_selection='reduction')[0])


def test_mergers_of_means_are_not_taken_for_contrast():
  model, variables = small('ctx_convnext_mini')
  state = to_torch(variables, model, 'authors')
  with pytest.raises(ValueError, match='merge_contrast=False'):
    load_torch_weights(state, small('ctx_convnext_mini', merge_contrast=True)[0])


def test_unknown_names_and_other_things_in_a_dict():
  model, _ = small('convnext_mini')
  with pytest.raises(
    ValueError, match=r"unknown network \(a, ...\); known: the authors' contextual ConvNeXt, "
  ):
    load_torch_weights({'a': np.zeros(2)}, model)
  with pytest.raises(ValueError, match="'lr', a float: expected names and arrays"):
    load_torch_weights({'lr': 0.1}, model)
  with pytest.raises(ValueError, match=r'none of them called model or state_dict.*it holds epoch, weights'):
    load_torch_weights({'epoch': 3, 'weights': {}}, model)
  with pytest.raises(ValueError, match='no names for params/head/bias, params/head/kernel'):
    to_torch(small('convnext_mini')[1], model, 'authors')
  with pytest.raises(
    ValueError, match="'keras' names no source of ConvNeXt weights; known: authors, facebook"
  ):
    to_torch({}, model, 'keras')
