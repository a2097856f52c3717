"""Weights of detectors: MMDetection's names both ways, and networks of classification as backbones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import DETECTOR_PARAMETERS, slow_unless, small
from tiny_detectors import random_variables, tiny

from ctx_flax.models import create_model
from ctx_flax.models.weights import expected_variables, fit, flatten, number_of_classes
from ctx_flax.torch_weights import load_torch_weights, to_torch
from ctx_flax.torch_weights import number_of_classes as number_in_torch

# Name and shape there of parameters of a detector of 80 classes on ConvNeXt-T, one of each kind.
NAMES = {
  'mask_rcnn': {
    'backbone.downsample_layers.2.1.weight': (384, 192, 2, 2),
    'backbone.stages.2.8.gamma': (384,),
    'backbone.norm3.weight': (768,),
    'neck.lateral_convs.3.conv.weight': (256, 768, 1, 1),
    'neck.fpn_convs.0.conv.bias': (256,),
    'rpn_head.rpn_reg.weight': (12, 256, 1, 1),
    'roi_head.bbox_head.shared_fcs.0.weight': (1024, 12544),
    'roi_head.bbox_head.fc_cls.bias': (81,),
    'roi_head.mask_head.upsample.weight': (256, 256, 2, 2),
    'roi_head.mask_head.conv_logits.weight': (80, 256, 1, 1),
  },
  'cascade_mask_rcnn': {
    'roi_head.bbox_head.2.shared_convs.3.bn.running_var': (256,),
    'roi_head.bbox_head.0.shared_fcs.0.weight': (1024, 12544),
    'roi_head.bbox_head.1.fc_reg.weight': (320, 1024),
    'roi_head.mask_head.2.convs.3.conv.weight': (256, 256, 3, 3),
  },
}


@functools.cache
def shapes_there(name):
  """(model, {name there: shape}) of a whole detector, whose variables stay shapes."""
  model = create_model(name, backbone='convnext_t')
  zeros = lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
  variables = jax.tree.map(zeros, expected_variables(model))
  assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == DETECTOR_PARAMETERS[name]
  state = to_torch(variables, model, 'mmdet')
  return model, {key: value.shape for key, value in state.items()}


# The names of Mask R-CNN are also those of the small one that has MMDetection's values.
TABLES = slow_unless(NAMES, 'cascade_mask_rcnn')


@pytest.mark.parametrize('name', TABLES)
def test_parameters_and_names_there(name):
  assert NAMES[name].items() <= shapes_there(name)[1].items()


@pytest.mark.parametrize('name', TABLES)
def test_checkpoints_of_mmdetection(golden_folder, name):
  path = golden_folder / 'coco' / f'params_{name}_convnext_t.txt'
  rows = [line.split('\t') for line in path.read_text().splitlines() if not line.startswith('#')]
  shapes = {key: () if shape == 'scalar' else tuple(map(int, shape.split('x'))) for key, shape in rows}
  model, ours = shapes_there(name)
  assert ours == shapes
  load_torch_weights({key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}, model)


@pytest.mark.parametrize(
  'name, backbone',
  [
    pytest.param('mask_rcnn', 'resnet_mini', marks=pytest.mark.slow),
    ('cascade_mask_rcnn', 'convnext_mini'),
  ],
)
def test_there_and_back_changes_no_bit(name, backbone):
  model = tiny(name, backbone=backbone)
  variables = random_variables(model)
  state = to_torch(variables, model, 'mmdet')
  assert number_in_torch(state) == number_of_classes(flatten(variables)) == 5
  jax.tree.map(np.testing.assert_array_equal, load_torch_weights(state, model), variables)
  assert ('backbone.layer1.0.conv1.weight' in state) == (backbone == 'resnet_mini')
  assert ('backbone.norm0.weight' in state) == (backbone == 'convnext_mini')  # no norm behind a ReLU


def test_layouts_by_hand():
  """The first linear layer reads channel by channel there; a transposed convolution has its inputs first."""
  model = tiny('mask_rcnn')
  variables = random_variables(model)
  state, params = to_torch(variables, model, 'mmdet'), variables['params']
  linear = params['box_head0']['fc0']['kernel']  # rows, columns, channels
  y, x, c = 2, 5, 11
  np.testing.assert_array_equal(
    state['roi_head.bbox_head.shared_fcs.0.weight'][:, 49 * c + 7 * y + x], linear[16 * (7 * y + x) + c]
  )
  upsample = params['mask_head0']['upsample']['kernel']
  np.testing.assert_array_equal(state['roi_head.mask_head.upsample.weight'][3, 7, 1, 0], upsample[1, 0, 3, 7])


BACKBONE = {'depths': (1, 2, 1, 1), 'embed_dim': 24, 'class_selection': 'rerank'}


def detector(name, **keywords):
  """A detector on the network `small(name)`."""
  network, _ = small(name)
  options = BACKBONE | {'context_classes': 10} if name.startswith('ctx_') else {'depths': BACKBONE['depths']}
  return tiny('mask_rcnn', backbone=name, **options | {'dims': network.dims} | keywords)


CLASSIFIERS = [
  ('convnext_mini', 'facebook'),
  ('convnext_mini', 'timm'),
  pytest.param('resnet_mini', 'torchvision', marks=pytest.mark.slow),
  ('ctx_convnext_mini', 'authors'),
  pytest.param('ctx_resnet_mini', '', marks=pytest.mark.slow),
]


@pytest.mark.parametrize('name, source', CLASSIFIERS)
def test_a_classification_network_becomes_the_backbone(name, source):
  """Every variable but its own class head's; the rest of the detector is `initial`'s."""
  network, theirs = small(name)
  model = detector(name)
  own = random_variables(model)
  if source:
    load = functools.partial(load_torch_weights, to_torch(theirs, network, source), model)
  else:
    load = lambda **keywords: fit(model, flatten(theirs), what='theirs', **keywords)[0]
  started = flatten(load(allow_missing='detector', initial=own))
  flat, initial = flatten(theirs), flatten(own)
  used = set()
  for key, value in started.items():
    collection, room, rest = key.split('/', 2)
    if room == 'backbone':
      used.add(f'{collection}/{rest}')
      np.testing.assert_array_equal(value, flat[f'{collection}/{rest}'], err_msg=key)
    else:
      np.testing.assert_array_equal(value, initial[key], err_msg=key)
  left = {key.split('/')[1] if 'contextualizer' not in key else key.split('/')[2] for key in set(flat) - used}
  heads = {'convnext_mini': {'norm', 'head'}, 'resnet_mini': {'fc'}}
  assert left == heads.get(name, {'head4'})
  with pytest.raises(
    ValueError, match='the weights of a classification network alone, which detects'
  ) as told:
    load(initial=own)
  assert '\n' not in str(told.value)


def test_plain_weights_start_a_contextual_backbone():
  network, theirs = small('convnext_mini')
  model = detector('ctx_convnext_mini', context_classes=30)
  state = to_torch(theirs, network, 'facebook')
  own = random_variables(model)
  started = load_torch_weights(state, model, allow_missing=('detector', 'contextual', 'head'), initial=own)[
    'params'
  ]['backbone']
  np.testing.assert_array_equal(
    started['stage2_block0']['dwconv']['kernel'], theirs['params']['stage2_block0']['dwconv']['kernel']
  )
  assert jnp.shape(started['contextualizer']['class_embedding']) == (30, 24)
  with pytest.raises(ValueError, match=r'missing \(\d+\): .*backbone/contextualizer/class_embedding'):
    load_torch_weights(state, model, allow_missing='detector', initial=own)


def test_detectors_of_another_kind_or_number_of_classes():
  model = tiny('mask_rcnn')
  state = to_torch(random_variables(model), model, 'mmdet')
  with pytest.raises(ValueError, match="mmdet's MaskRCNN, which do not fit a CascadeMaskRCNN"):
    load_torch_weights(state, tiny('cascade_mask_rcnn'))
  with pytest.raises(ValueError, match="mmdet's MaskRCNN, which do not fit a ConvNeXt"):
    load_torch_weights(state, small('convnext_mini')[0])
  with pytest.raises(ValueError, match="torchvision's ResNet, which do not fit a ConvNeXt"):
    load_torch_weights(to_torch(small('resnet_mini')[1], small('resnet_mini')[0], 'torchvision'), model)
  many = tiny('mask_rcnn', num_classes=9)
  started = load_torch_weights(
    state, many, allow_missing=many.class_parameters, initial=random_variables(many)
  )
  assert started['params']['box_head0']['cls']['bias'].shape == (10,)
  np.testing.assert_array_equal(
    started['params']['box_head0']['fc0']['bias'], state['roi_head.bbox_head.shared_fcs.0.bias']
  )


def test_contextual_detectors_have_no_names_there():
  model = detector('ctx_convnext_mini')
  with pytest.raises(ValueError, match=r"mmdet's MaskRCNN has no names for .*backbone/contextualizer/"):
    to_torch(random_variables(model), model, 'mmdet')
