"""`depthwise_path` of a ConvNeXt: it reaches every plain depthwise convolution and changes no number."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from initial_values import initial_values, moved
from op_cases import assert_close

from configs import coco_tiny, digits
from ctx_flax.layers import ConvNeXtBlock
from ctx_flax.models import create_model
from ctx_flax.ops.depthwise_conv import PATHS
from ctx_flax.tasks.classification import networks
from ctx_flax.tasks.detection import networks as detectors

TINY = {'num_classes': 5, 'depths': (1, 1, 1, 1), 'dims': (8, 12, 16, 24), 'stem_stride': 2}


def values_and_gradients(module, shape):
  """((output for two inputs of a shape, gradients of parameters and inputs), convolutions in the program)."""
  inputs = np.random.default_rng(1).standard_normal((2, *shape), np.float32)
  params = moved(initial_values(module, shape)['params'], 0.1)

  @jax.jit
  def run(params, inputs):
    def loss(params, inputs):
      value, _ = module.apply({'params': params}, inputs, train=False)
      return jnp.sum(jnp.sin(value)), value

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, inputs)

  program = run.lower(params, inputs)
  return program.compile()(params, inputs), program.as_text().count('.convolution(')


def test_blocks_take_the_path_and_compute_the_same():
  block = ConvNeXtBlock(layer_scale_init=0.5)
  expected, _ = values_and_gradients(block, (6, 5, 4))
  for path, convolutions in {'shift': 0, 'xla': 3, 'mixed': 2}.items():
    actual, count = values_and_gradients(block.clone(depthwise_path=path), (6, 5, 4))
    assert_close(actual, expected)
    assert count == convolutions, path


@pytest.mark.slow
def test_networks_are_equal_under_every_path():
  model = create_model('convnext_mini', **TINY, layer_scale_init=0.5)
  expected, _ = values_and_gradients(model, (16, 16, 3))
  for path in PATHS:
    actual, _ = values_and_gradients(model.clone(depthwise_path=path), (16, 16, 3))
    assert_close(actual, expected)


def paths_of(model, shape=(32, 32, 3)):
  """The path that each plain depthwise convolution of a network has, by the name of its block."""
  seen = {}

  def record(call, arguments, keywords, context):
    if hasattr(context.module, 'kernel_size') and hasattr(context.module, 'depthwise_path'):
      seen[context.module.path[-2]] = context.module.depthwise_path
    return call(*arguments, **keywords)

  with nn.intercept_methods(record):
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape)))
  return seen


@pytest.mark.parametrize('remat', [False, True])
def test_the_field_reaches_every_plain_block(remat):
  config = digits.get_config()
  config.model.update(depths=(1, 2, 1, 1), depthwise_path='mixed', remat=remat)
  model = create_model(**networks.model_keywords(config, 10))
  assert paths_of(model) == {'stage1_block0': 'mixed', 'stage2_block1': 'mixed'}  # the others are contextual
  assert paths_of(model.clone(depthwise_path=''))['stage1_block0'] == ''


def test_the_field_reaches_the_backbone_of_a_detector():
  config = coco_tiny.get_config()
  config.model.update(backbone='convnext_mini', depthwise_path='shift')
  assert create_model(**detectors.model_keywords(config, 3)).backbone.depthwise_path == 'shift'
  config.model.backbone = 'resnet_mini'
  with pytest.raises(ValueError, match="mask_rcnn takes no 'depthwise_path'"):
    create_model(**detectors.model_keywords(config, 3))
