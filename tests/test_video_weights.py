"""Published weights of clip networks: the names of TSM's and mmaction2's checkpoints, both ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from initial_values import drawn
from networks import small

from ctx_flax.models import create_model
from ctx_flax.models.weights import expected_variables
from ctx_flax.torch_weights import load_torch_weights, to_torch

# Name and shape there of some parameters of a ResNet-50 of 400 classes, one of each kind.
NAMES = {
  'tsm': {
    'module.base_model.conv1.weight': (64, 3, 7, 7),
    'module.base_model.bn1.running_var': (64,),
    'module.base_model.layer1.0.conv1.net.weight': (64, 64, 1, 1),
    'module.base_model.layer3.5.conv2.weight': (256, 256, 3, 3),
    'module.base_model.layer4.0.downsample.0.weight': (2048, 1024, 1, 1),
    'module.base_model.layer2.0.downsample.1.bias': (512,),
    'module.new_fc.weight': (400, 2048),
    'module.new_fc.bias': (400,),
  },
  'mmaction2': {
    'backbone.conv1.conv.weight': (64, 3, 7, 7),
    'backbone.conv1.bn.weight': (64,),
    'backbone.layer1.0.conv1.conv.net.weight': (64, 64, 1, 1),
    'backbone.layer1.0.conv1.bn.running_mean': (64,),
    'backbone.layer3.5.conv2.conv.weight': (256, 256, 3, 3),
    'backbone.layer4.0.downsample.conv.weight': (2048, 1024, 1, 1),
    'backbone.layer2.0.downsample.bn.bias': (512,),
    'cls_head.fc_cls.weight': (400, 2048),
  },
}


def state_of_resnet50(source):
  """(model, {name there: shape}) of the whole network, whose variables stay shapes."""
  model = create_model('resnet50', num_classes=400, segments=8)
  zeros = lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
  state = to_torch(jax.tree.map(zeros, expected_variables(model)), model, source)
  return model, {name: value.shape for name, value in state.items()}


@pytest.mark.parametrize('source', NAMES)
def test_names_there(source):
  _, shapes = state_of_resnet50(source)
  assert len(shapes) == 320
  assert NAMES[source].items() <= shapes.items()


def test_the_published_checkpoint_of_tsm(golden_folder):
  path = golden_folder / 'video' / 'tsm_resnet50_kinetics_names.txt'
  rows = [line.split('\t') for line in path.read_text().splitlines()]
  shapes = {name: () if shape == 'scalar' else tuple(map(int, shape.split('x'))) for name, shape in rows}
  model, ours = state_of_resnet50('tsm')
  assert ours == shapes
  load_torch_weights({name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}, model)


@pytest.mark.parametrize('source', NAMES)
def test_there_and_back_changes_no_bit(source):
  _, variables = small('resnet_mini')
  model = create_model('resnet_mini', depths=(1, 2, 1, 1), dims=(8, 16, 24, 32), num_classes=10, segments=4)
  state = to_torch(variables, model, source)
  again = load_torch_weights(state, model)
  jax.tree.map(np.testing.assert_array_equal, again, variables)
  bare = {name.removeprefix('module.'): value for name, value in state.items()}
  jax.tree.map(np.testing.assert_array_equal, load_torch_weights(bare, model), variables)


def test_an_image_network_starts_a_clip_network():
  """torchvision's weights are all of a plain network of clips, and a contextual one takes what it can."""
  images, variables = small('resnet_mini')
  state = to_torch(variables, images, 'torchvision')
  size = {'depths': (1, 2, 1, 1), 'dims': (8, 16, 24, 32)}
  clips = create_model('resnet_mini', segments=4, num_classes=10, **size)
  jax.tree.map(np.testing.assert_array_equal, load_torch_weights(state, clips), variables)
  contextual = create_model('ctx_resnet_mini', segments=4, num_classes=20, **size)
  own = drawn(contextual, expected_variables(contextual))
  started = load_torch_weights(state, contextual, allow_missing=('contextual', 'head'), initial=own)
  np.testing.assert_array_equal(started['params']['conv1']['kernel'], variables['params']['conv1']['kernel'])
  assert jnp.shape(started['params']['contextualizer']['class_embedding']) == (20, 256)
