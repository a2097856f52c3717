"""PyTorch weights: names and shapes of checkpoints, values against PyTorch, and every kind of wrong file."""

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from test_golden import NETWORKS, network, part
from torch_names import variables_from_torch

from ctx_flax.models import create_model
from ctx_flax.models.weights import flatten, load_weights
from ctx_flax.torch_weights import __main__ as program
from ctx_flax.torch_weights import load_torch_weights, to_torch

OWN_KEYS = pathlib.Path(__file__).parent / 'keys'
SMALL = {
  'convnext_mini': {'depths': (1, 2, 1, 1), 'dims': (16, 32, 48, 64), 'num_classes': 10},
  'resnet_mini': {'depths': (1, 2, 1, 1), 'dims': (8, 16, 24, 32), 'num_classes': 10},
}


@functools.cache
def small(name, **keywords):
  """(model, variables), all of these random, also those that start at zero or one."""
  attributes = SMALL[name.removeprefix('ctx_')]
  if name.startswith('ctx_'):
    attributes = attributes | {'embed_dim': 24, 'class_selection': 'rerank'}
  model = create_model(name, **attributes | keywords)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
  rng = np.random.default_rng(0)
  draw = {True: lambda shape: rng.uniform(0.5, 1.5, shape), False: lambda shape: rng.normal(0, 0.1, shape)}
  return model, jax.tree_util.tree_map_with_path(
    lambda path, leaf: np.asarray(draw[path[-1].key in ('scale', 'var')](leaf.shape), np.float32), shapes
  )


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


@pytest.mark.parametrize('table', TABLES)
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
    "'contextaul', which is none of contextual, head and matches no parameter",
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


def test_weights_inside_a_training_checkpoint():
  """As facebook's (model), timm's (state_dict, and an average) and of several devices (module.)."""
  model, variables = small('convnext_mini')
  state = to_torch(variables, model, 'timm')
  other = {f'module.{name}': value + 1 for name, value in state.items()}
  checkpoint = {'epoch': 3, 'state_dict': state, 'state_dict_ema': other}
  scale = lambda found: found['params']['stem_norm']['scale']
  np.testing.assert_array_equal(scale(load_torch_weights(checkpoint, model)), scale(variables))
  averaged = load_torch_weights(checkpoint, model, entry='state_dict_ema')
  np.testing.assert_array_equal(scale(averaged), scale(variables) + 1)


def test_files_that_are_no_weights(tmp_path):
  model, variables = small('convnext_mini')
  path = tmp_path / 'w.safetensors'
  state = {name: np.asarray(value, order='C') for name, value in to_torch(variables, model, 'timm').items()}
  safetensors.numpy.save_file(state, path)
  path.write_bytes(path.read_bytes()[:-10])
  with pytest.raises(
    ValueError, match=r'w.safetensors is no complete .safetensors file: .*not fully covered'
  ):
    load_torch_weights(path, model)
  with pytest.raises(FileNotFoundError, match=r'none.safetensors does not exist'):
    load_torch_weights(tmp_path / 'none.safetensors', model)
  (tmp_path / 'w.txt').write_text('')
  with pytest.raises(ValueError, match=r'expected \.safetensors, \.pth'):
    load_torch_weights(tmp_path / 'w.txt', model)


def test_half_precision_becomes_the_parameters_own(tmp_path):
  model, variables = small('resnet_mini')
  state = {
    name: np.asarray(value, ml_dtypes.bfloat16 if value.dtype == np.float32 else value.dtype, order='C')
    for name, value in to_torch(variables, model, 'timm').items()
  }
  safetensors.numpy.save_file(state, tmp_path / 'w.safetensors')
  loaded = load_torch_weights(tmp_path / 'w.safetensors', model)
  for ours, expected in zip(jax.tree.leaves(loaded), jax.tree.leaves(variables), strict=True):
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=2**-8)


def test_pickled_weights_need_pytorch(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  path = tmp_path / 'w.pth'
  path.write_bytes(b'')
  with pytest.raises(ImportError, match='takes PyTorch: pip install torch, or convert the file where'):
    load_torch_weights(path, small('convnext_mini')[0])


def test_pickled_weights(tmp_path):
  torch = pytest.importorskip('torch', reason='PyTorch is not installed: its files cannot be read')
  model, variables = small('resnet_mini')
  state = {
    name: torch.from_numpy(np.array(v)) for name, v in to_torch(variables, model, 'torchvision').items()
  }
  path = tmp_path / 'w.pth'
  torch.save({'model': state, 'epoch': 3}, path)
  jax.tree.map(np.testing.assert_array_equal, load_torch_weights(path, model), variables)
  path.write_bytes(path.read_bytes()[:-1000])
  with pytest.raises(ValueError, match=r'w\.pth cannot be read by torch\.load'):
    load_torch_weights(path, model)


def torchvision_convnext():
  convnext = pytest.importorskip('torchvision.models.convnext', reason='torchvision is not installed')
  dims, depths = SMALL['convnext_mini']['dims'], SMALL['convnext_mini']['depths']
  blocks = [
    convnext.CNBlockConfig(dim, after, depth)
    for dim, after, depth in zip(dims, (*dims[1:], None), depths, strict=True)
  ]
  return convnext.ConvNeXt(blocks, num_classes=10, layer_scale=0.5)


def timm_convnext():
  timm = pytest.importorskip('timm', reason='timm is not installed')
  dims, depths = SMALL['convnext_mini']['dims'], SMALL['convnext_mini']['depths']
  return timm.models.ConvNeXt(depths=depths, dims=dims, num_classes=10, ls_init_value=0.5)


def torchvision_resnet():
  resnet = pytest.importorskip('torchvision.models.resnet', reason='torchvision is not installed')
  return resnet.ResNet(resnet.Bottleneck, [1, 2, 1, 1], num_classes=10)


def timm_resnet():
  timm = pytest.importorskip('timm', reason='timm is not installed')
  return timm.models.ResNet(timm.models.resnet.Bottleneck, (1, 2, 1, 1), num_classes=10)


PARITY = {
  'torchvision ConvNeXt': (torchvision_convnext, 'convnext_mini', {}),
  'timm ConvNeXt': (timm_convnext, 'convnext_mini', {}),
  'torchvision ResNet': (torchvision_resnet, 'resnet_mini', {'dims': (64, 128, 256, 512)}),
  'timm ResNet': (timm_resnet, 'resnet_mini', {'dims': (64, 128, 256, 512)}),
}


@pytest.mark.parametrize('case', PARITY)
def test_whole_networks_against_pytorch(case):
  build, name, keywords = PARITY[case]
  torch = pytest.importorskip('torch', reason='PyTorch is not installed: nothing to compare with')
  torch.manual_seed(0)
  theirs = build().eval()
  with torch.no_grad():
    for key, value in theirs.state_dict().items():
      if key.endswith('running_var'):
        value.uniform_(0.5, 1.5)
      elif value.is_floating_point():
        value.add_(0.1 * torch.randn_like(value))
  images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32)
  with torch.no_grad():
    expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
  model = create_model(name, **SMALL[name] | keywords)
  logits, _ = jax.jit(model.apply)(load_torch_weights(theirs.state_dict(), model), images)
  np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_program_converts_there_and_back(tmp_path, capsys, monkeypatch):
  """With depths and dims of its own a network has no name, so the mini ones as they are."""
  model = create_model('convnext_mini', num_classes=10)
  variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  theirs, ours, back = (str(tmp_path / f'{name}.safetensors') for name in ('theirs', 'ours', 'back'))
  state = {name: np.asarray(value, order='C') for name, value in to_torch(variables, model, 'timm').items()}
  safetensors.numpy.save_file(state, theirs)
  program.main([theirs, '--model=convnext_mini', f'--out={ours}'])
  loaded, about = load_weights(ours)
  assert about['model'] == {'name': 'convnext_mini', 'num_classes': 10}
  assert flatten(loaded).keys() == flatten(variables).keys()
  program.main([ours, '--to=timm', f'--out={back}'])
  again = safetensors.numpy.load_file(back)
  assert again.keys() == state.keys()
  for name, value in state.items():
    np.testing.assert_array_equal(again[name], value)
  parameters = sum(value.size for value in jax.tree.leaves(variables))
  assert capsys.readouterr().out.count(f'{parameters:,} parameters in') == 2

  start = ['--allow_missing=contextual', '--allow_missing=head', '--num_classes=37', '--mask_gain=2']
  program.main([theirs, '--model=ctx_convnext_mini', *start, f'--out={ours}'])
  variables, about = load_weights(ours)
  assert variables['params']['contextualizer']['class_embedding'].shape == (37, 256)
  assert about['model'] == {
    'name': 'ctx_convnext_mini',
    'num_classes': 37,
    'class_selection': 'reduction',
    'mask_gain': 2.0,
  }


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['w.safetensors', '--out=x.safetensors'], 'give --model=NAME'),
    (['w.safetensors', '--model=convnext_t', '--out=x'], 'must end in .safetensors'),
    (['w.safetensors', '--model=convnext_t', '--out=x.safetensors'], 'w.safetensors does not exist'),
  ],
)
def test_program_tells_mistakes_in_one_line(arguments, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit, match=message):
    program.main(arguments)
