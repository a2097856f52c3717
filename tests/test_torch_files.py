"""Files of PyTorch weights: every kind of them, PyTorch's own networks, and the program that converts."""

import sys

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from initial_values import initial_values
from networks import SMALL, small

from ctx_flax.models import create_model
from ctx_flax.models.weights import flatten, load_weights
from ctx_flax.torch_weights import __main__ as program
from ctx_flax.torch_weights import load_torch_weights, to_torch


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


@pytest.fixture(scope='module')
def mini(tmp_path_factory):
  """(variables, a file as timm's of them); with depths and dims of its own a network has no name."""
  model = create_model('convnext_mini', num_classes=10)
  variables = initial_values(model)
  path = str(tmp_path_factory.mktemp('mini') / 'theirs.safetensors')
  state = {name: np.asarray(value, order='C') for name, value in to_torch(variables, model, 'timm').items()}
  safetensors.numpy.save_file(state, path)
  return variables, path


def test_program_converts_there_and_back(mini, tmp_path, capsys):
  variables, theirs = mini
  state = safetensors.numpy.load_file(theirs)
  ours, back = (str(tmp_path / f'{name}.safetensors') for name in ('ours', 'back'))
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


@pytest.mark.slow
def test_program_makes_a_start_of_a_contextual_network(mini, tmp_path):
  ours = str(tmp_path / 'ours.safetensors')
  start = ['--allow_missing=contextual', '--allow_missing=head', '--num_classes=37', '--mask_gain=2']
  program.main([mini[1], '--model=ctx_convnext_mini', *start, f'--out={ours}'])
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
