"""What create_model takes for detectors, and what they say of themselves."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import DETECTOR_GMAC, DETECTOR_PARAMETERS, slow_unless
from tiny_detectors import random_variables, tiny

from ctx_flax.models import DETECTORS, create_model, used_keywords
from ctx_flax.models.summary import summarise
from ctx_flax.models.weights import flatten

WRONG = {
  'a backbone': ({'backbone': 'convnet_t'}, r"backbone='convnet_t'.*did you mean 'convnext_t'"),
  'a keyword': ({'num_class': 3}, r"mask_rcnn takes no 'num_class'.*'num_classes'"),
  'what a backbone has not': ({'segments': 8}, "takes no 'segments'"),
  'contexts of a plain network': (
    {'backbone': 'convnext_t', 'context_classes': 20},
    'convnext_t is a plain network, which has no use for context_classes=20',
  ),
  'an option of a contextual one': ({'backbone': 'convnext_t', 'mask_gain': 2.0}, 'no use for mask_gain=2.0'),
  'one class to choose from': (
    {'context_classes': 1},
    'context_classes=1: expected an integer, at least 2|context_classes=1',
  ),
  'a threshold': ({'nms_threshold': 1.5}, 'nms_threshold=1.5: expected at least 0 and below 1'),
  'no proposal': ({'test_proposals': 0}, 'test_proposals=0: expected at least 1'),
  'a dtype': ({'dtype': 'float31'}, "dtype='float31'"),
}


@pytest.mark.parametrize('case', WRONG)
def test_what_create_model_refuses(case):
  keywords, message = WRONG[case]
  with pytest.raises(ValueError, match=message) as told:
    create_model('mask_rcnn', **keywords)
  assert str(told.value).startswith('mask_rcnn') and '\n' not in str(told.value)


def test_an_unknown_detector():
  with pytest.raises(ValueError, match=r"unknown model 'mask_rcn'.*'mask_rcnn'"):
    create_model('mask_rcn')


def test_keywords_reach_the_detector_or_its_backbone():
  model = create_model(
    'cascade_mask_rcnn',
    backbone='ctx_resnet50',
    context_classes=366,
    axis_name='batch',
    remat=True,
    dtype='bfloat16',
  )
  backbone = model.backbone
  assert (model.num_classes, backbone.num_classes, model.stages) == (80, 366, 3)
  assert (model.axis_name, backbone.axis_name, backbone.remat) == ('batch', None, True)
  assert model.dtype == backbone.dtype == jnp.bfloat16
  assert create_model('mask_rcnn').backbone == create_model('ctx_convnext_t')
  assert model.clone(axis_name=None).box_stds == model.box_stds
  assert (model.train_proposals, model.allowed_border) == (2000, 0)  # in which the two differ
  shared = {
    'name': 'mask_rcnn',
    'backbone': 'convnext_t',
    'mask_gain': 2.0,
    'context_classes': 20,
    'num_classes': 9,
  }
  kept = {'name': 'mask_rcnn', 'backbone': 'convnext_t', 'num_classes': 9}
  assert used_keywords('mask_rcnn', shared) == kept
  assert used_keywords('mask_rcnn', shared | {'backbone': 'ctx_convnext_t'}).keys() == shared.keys()


def test_every_parameter_has_the_id_of_its_layer():
  """The backbone's own, shifted by nothing; all that detection adds is with the heads."""
  model = tiny('mask_rcnn')
  for name in flatten(random_variables(model)['params']):
    room, _, rest = name.partition('/')
    assert model.layer_id(name) == (
      model.backbone.layer_id(rest) if room == 'backbone' else model.num_layers + 1
    )
  assert model.layer_id('backbone/stem_conv/kernel') == 0
  assert (
    model.layer_id('output_norm0/scale') == model.layer_id('neck/lateral0/kernel') == model.num_layers + 1
  )


@pytest.mark.parametrize(
  'backbone, fixed',
  [
    ('convnext_mini', set()),
    ('resnet_mini', {'conv1', 'bn1', 'stage1_block0'}),
    ('ctx_resnet_mini', {'conv1', 'bn1', 'stage1_block0', 'contextualizer'}),
  ],
)
def test_parameters_that_training_leaves_alone(backbone, fixed):
  model = tiny('mask_rcnn', backbone=backbone)
  matching = {
    name
    for name in flatten(random_variables(model)['params'])
    if any(re.fullmatch(pattern, name) for pattern in model.fixed_parameters)
  }
  assert {name.split('/')[1] for name in matching} == fixed
  contextual = {name.split('/')[2] for name in matching if 'contextualizer' in name}
  expected = {'class_embedding', 'logit_scale', 'head1', 'head2', 'head3'}
  assert contextual == (expected if 'contextualizer' in fixed else set())


def test_parameters_that_depend_on_the_label_set():
  few, many = (random_variables(tiny('cascade_mask_rcnn', num_classes=n))['params'] for n in (5, 6))
  few, many = flatten(few), flatten(many)
  changed = {name for name in few if np.shape(few[name]) != np.shape(many[name])}
  matching = {name for name in few if re.fullmatch(tiny('mask_rcnn').class_parameters, name)}
  assert changed == matching and len(changed) == 3 * 6


def test_sizes_and_canvas():
  model = tiny('mask_rcnn')
  assert model.strides == (4, 8, 16, 32, 64) and model.example_shape() == (32, 32, 3)
  images = jax.ShapeDtypeStruct((1, 64, 40, 3), jnp.float32)
  apply = lambda images: model.apply(
    random_variables(model), images, valid_hw=jnp.array([[60, 33]]), method='features'
  )
  with pytest.raises(
    ValueError, match=r'images have 64 x 40 pixels: with padded_hw or valid_hw both must be mul'
  ):
    jax.eval_shape(apply, images)
  free = lambda images: model.apply(random_variables(model), images, method='features')
  pyramid, _ = jax.eval_shape(free, images)
  assert [x.shape[1:] for x in pyramid] == [(16, 10, 16), (8, 5, 16), (4, 2, 16), (2, 1, 16), (1, 1, 16)]


def test_every_detector_has_a_row():
  """Also in the documentation, with its sizes."""
  assert set(DETECTOR_PARAMETERS) == set(DETECTOR_GMAC) == set(DETECTORS)
  text = (pathlib.Path(__file__).parent.parent / 'docs' / 'detection.md').read_text()
  for name in DETECTORS:
    assert f'| `{name}` | {DETECTOR_PARAMETERS[name]:,} | {DETECTOR_GMAC[name]} G |' in text


@pytest.mark.parametrize('name', slow_unless(DETECTORS))
def test_multiply_accumulates(name):
  """All heads of all proposals and detections of a test."""
  layers = summarise(create_model(name, backbone='convnext_t'), (800, 1280, 3))
  assert sum(layer.parameters for layer in layers) == DETECTOR_PARAMETERS[name]
  assert sum(layer.macs for layer in layers) / 1e9 == pytest.approx(DETECTOR_GMAC[name], abs=0.05)
  by_path = {layer.path: layer for layer in layers}
  cells = sum(-(-800 // s) * -(-1280 // s) for s in (4, 8, 16, 32, 64))
  assert by_path['rpn_head/conv'].macs == cells * 9 * 256 * 256
  assert by_path['box_head0/cls'].macs == 1000 * 1024 * 81
