"""Layers, parameters and multiply-accumulates of networks: the published totals, and layers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import PARAMETERS, slow_unless

from ctx_flax.models import create_model
from ctx_flax.models.summary import summarise

# At 224 px and 1000 classes, in 1e9: published for the plain ones; those of the contextual ones are counted
# with the mergers reading the rows of the considered classes.
GMAC = {
  'convnext_t': 4.456,
  'convnext_s': 8.684,
  'convnext_b': 15.355,
  'resnet50': 4.089,
  'ctx_convnext_t': 4.685,
  'ctx_convnext_s': 9.135,
  'ctx_convnext_b': 15.965,
  'ctx_resnet50': 4.218,
}


@pytest.mark.parametrize('name', slow_unless(GMAC, 'ctx_convnext_t', 'resnet50'))  # each family once
def test_totals(name):
  layers = summarise(create_model(name), (224, 224, 3))
  assert sum(layer.parameters for layer in layers) == PARAMETERS[name]
  assert sum(layer.macs for layer in layers) / 1e9 == pytest.approx(GMAC[name], abs=5e-4)


@pytest.fixture(scope='module')
def layers():
  keywords = {'class_counts': (8, 6, 4), 'embed_dim': 32, 'depths': (1, 1, 1, 1)}
  model = create_model('ctx_convnext_mini', num_classes=10, **keywords)
  return {layer.path: layer for layer in summarise(model, (64, 32, 3))}


def test_layers_by_hand(layers):
  stem = layers['stem_conv']
  assert (stem.kind, stem.shape) == ('Conv', (16, 8, 32))
  assert (stem.parameters, stem.macs) == (4 * 4 * 3 * 32 + 32, 16 * 8 * 4 * 4 * 3 * 32)
  wide = layers['stage1_block0/pwconv1']
  assert (wide.shape, wide.macs) == ((16, 8, 128), 16 * 8 * 32 * 128)
  depthwise = layers['stage1_block0/dwconv']
  assert (depthwise.parameters, depthwise.macs) == (50 * 32, 16 * 8 * 49 * 32)
  norm = layers['stem_norm']
  assert (norm.parameters, norm.macs) == (64, 0)


def test_contextualizing_layers_by_hand(layers):
  """The table's cosines at four stages; the mergers' inner layers on 8, 6 and 4 rows."""
  table = layers['contextualizer']
  assert (table.parameters, table.macs) == (10 * 32 + 1, 4 * 10 * 32)
  for stage, count in ((2, 8), (3, 6), (4, 4)):
    inner = layers[f'contextualizer/merger{stage}/inner']
    assert (inner.parameters, inner.macs) == (32 * 128 + 128, count * 32 * 128)
    outer = layers[f'contextualizer/merger{stage}/outer']
    assert outer.macs == 128 * 2 ** (stage + 3)


def test_they_come_in_the_order_of_the_computation(layers):
  order = ('stem_conv', 'stage1_block0/dwconv', 'contextualizer/head1/', 'stage2_block0/dwconv', 'stage4_')
  at = [next(i for i, path in enumerate(layers) if path.startswith(start)) for start in order]
  assert at == sorted(at)


@pytest.mark.parametrize('name', slow_unless(['ctx_convnext_mini', 'ctx_resnet_mini'], 'ctx_convnext_mini'))
def test_blocks_hold_the_sums_of_their_layers(name):
  model = create_model(name, num_classes=10, depths=(1, 2, 1, 1))
  single, blocks = (summarise(model, (32, 32, 3), depth=depth) for depth in (0, 1))
  assert len({layer.path for layer in blocks}) == len(blocks) < len(single)
  for block in blocks:
    inside = [layer for layer in single if layer.path.split('/')[0] == block.path]
    assert block.parameters == sum(layer.parameters for layer in inside)
    assert block.macs == sum(layer.macs for layer in inside)
  variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  assert {layer.path for layer in blocks} == set(variables['params'])
  assert all(np.prod(layer.shape) > 0 for layer in blocks)
