"""Which parameters take weight decay, and the layers that a family declares for layer-wise decay."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optimizer_settings import settings

from ctx_flax.models import MODELS, create_model
from ctx_flax.training import optimizer
from ctx_flax.training.parameter_groups import decay_mask, parameter_names

# ConvNeXt-T: by group of modules. The numbers are those of ConvNeXt's object_detection.
CONVNEXT_T = {
  0: 'stem_conv stem_norm',
  1: 'stage1_block0 stage1_block1 stage1_block2 contextualizer/head1',
  2: 'downsample2_norm downsample2_conv stage2_block0 stage2_block1 stage2_block2 contextualizer/head2 '
  'contextualizer/merger2',
  3: 'downsample3_norm downsample3_conv stage3_block0 stage3_block1 stage3_block2',
  4: 'stage3_block3 stage3_block4 stage3_block5',
  5: 'stage3_block6 stage3_block7 stage3_block8 contextualizer/head3 contextualizer/merger3',
  6: 'downsample4_norm downsample4_conv stage4_block0 stage4_block1 stage4_block2 contextualizer/merger4',
  7: 'contextualizer/head4 contextualizer/class_embedding contextualizer/logit_scale',
}


def shapes(name, size=32):
  model = create_model(name, num_classes=10)
  return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)))['params'])


def test_every_parameter_of_convnext_t_has_the_id_of_its_layer():
  model = create_model('ctx_convnext_t', num_classes=10)
  expected = {module: number for number, modules in CONVNEXT_T.items() for module in modules.split()}
  assert model.num_layers == 6
  missing = dict(expected)
  for name in jax.tree.leaves(parameter_names(shapes('ctx_convnext_t'))):
    parts = name.split('/')
    module = '/'.join(parts[:2]) if parts[0] == 'contextualizer' else parts[0]
    assert model.layer_id(name) == expected[module], name
    missing.pop(module, None)
  assert not missing
  # Of the plain network, and what another network puts on top of it.
  for name in ('norm/scale', 'head/kernel', 'fpn/lateral0/kernel'):
    assert model.layer_id(name) == 7


def test_ids_rise_through_every_network():
  """From 0 to num_layers + 1 without a gap, in the order in which the network computes its blocks."""
  for name, (family, attributes) in MODELS.items():
    depths = attributes['depths']
    model = family(**attributes)
    blocks = [f'stage{stage}_block{i}' for stage, depth in enumerate(depths, 1) for i in range(depth)]
    stem, head = ('stem_conv', 'head') if 'convnext' in name else ('conv1', 'fc')
    ids = [model.layer_id(f'{module}/kernel') for module in (stem, *blocks, head)]
    assert ids == sorted(ids) and set(ids) == set(range(model.num_layers + 2)), name
  layers = {name: create_model(name).num_layers for name in ('convnext_s', 'convnext_b', 'resnet50')}
  assert layers == {'convnext_s': 12, 'convnext_b': 12, 'resnet50': 5}
  assert create_model('convnext_s').layer_id('stage3_block26/norm/scale') == 11
  assert create_model('ctx_resnet50').layer_id('bn1/scale') == 0


@pytest.mark.parametrize('name', ['adamw', 'sgd'])
def test_layer_decay_multiplies_the_rate_of_a_layer(name):
  """Beside the factors of its group and of where the run starts; L = 6 for ConvNeXt-T."""
  params = {
    module: {'scale': jnp.ones(2)}
    for module in ('stem_norm', 'stage1_block0', 'stage3_block8', 'downsample4_norm', 'norm')
  }
  config = settings(name=name, layer_decay=0.7, groups=(('norm/.*', 3.0, 1.0), ('(?!norm/).*', 1.0, 1.0)))
  network = create_model('convnext_t')
  tx = optimizer.make_optimizer(config, 0.5, lambda name: 0.1 if 'block0' in name else 1.0, network=network)
  updates, _ = tx.update(params, tx.init(params), params)
  expected = {'stem_norm': 0.7**7, 'stage1_block0': 0.1 * 0.7**6, 'stage3_block8': 0.7**2}
  expected |= {'downsample4_norm': 0.7, 'norm': 3.0}
  for module, factor in expected.items():
    np.testing.assert_allclose(updates[module]['scale'], -0.5 * factor, rtol=1e-5, err_msg=module)


def test_layer_decay_needs_a_network_that_declares_layers():
  with pytest.raises(
    ValueError, match=r'optimizer\.layer_decay=0\.7 needs a network .* SimpleNamespace does'
  ):
    optimizer.make_optimizer(settings(layer_decay=0.7), 0.5, network=types.SimpleNamespace())
  optimizer.make_optimizer(settings(layer_decay=1.0), 0.5, network=types.SimpleNamespace())
  for decay in (0.0, 1.5, float('nan')):
    with pytest.raises(ValueError, match=rf'optimizer\.layer_decay must be above 0 .* {decay}'):
      optimizer.make_optimizer(settings(layer_decay=decay), 0.5)


def test_parameters_without_weight_decay_are_chosen_by_name():
  params = {
    'stage1_block0': {
      'norm': {'scale': np.ones(2)},
      'pwconv1': {'kernel': np.ones((2, 2)), 'bias': np.ones(2)},
    },
    'head': {'kernel': np.ones((2, 2)), 'class_embedding': np.ones((3, 2))},
  }

  def decayed(no_decay):
    mask = jax.tree.leaves(decay_mask(params, no_decay))
    return {n for n, yes in zip(jax.tree.leaves(parameter_names(params)), mask, strict=True) if yes}

  every = set(jax.tree.leaves(parameter_names(params)))
  kernels = {'stage1_block0/pwconv1/kernel', 'head/kernel'}
  assert decayed(('standard',)) == decayed('standard') == kernels
  assert decayed(()) == every
  assert decayed(('standard', 'head/.*')) == {'stage1_block0/pwconv1/kernel'}
  assert decayed(('.*norm.*',)) == every - {'stage1_block0/norm/scale'}
  with pytest.raises(
    ValueError, match=r"optimizer\.no_decay holds 'norm', which is not 'standard' and match"
  ):
    decayed(('norm',))
  for entry in ('(', 3):
    with pytest.raises(ValueError, match=r'optimizer\.no_decay holds .*: expected .standard. or a regex'):
      optimizer.make_optimizer(settings(no_decay=(entry,)), 0.5)


def test_the_optimizer_uses_the_choice_and_reports_its_mistakes():
  """() and groups together say for every parameter which decay it has, as other recipes write it."""
  params = {'fc': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}}
  zero = jax.tree.map(jnp.zeros_like, params)
  config = settings(name='sgd', no_decay=(), groups=(('.*/kernel', 1.0, 1.0), ('.*/bias', 1.0, 0.5)))
  tx = optimizer.make_optimizer(config, 1.0)
  updates, _ = tx.update(zero, tx.init(params), params)
  np.testing.assert_allclose(updates['fc']['kernel'], -0.1)
  np.testing.assert_allclose(updates['fc']['bias'], -0.05)
  with pytest.raises(ValueError, match=r"optimizer\.no_decay holds 'fc/kernels'"):
    optimizer.make_optimizer(settings(no_decay=('fc/kernels',)), 1.0).init(params)
