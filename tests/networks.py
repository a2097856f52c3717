"""Networks that several test files look at, and the table of all of them."""

import functools

import jax
import numpy as np
import pytest
from initial_values import moved

from ctx_flax.models import create_model
from ctx_flax.models.weights import expected_variables

# 1000 classes; the big ones as published with the paper.
PARAMETERS = {
  'convnext_t': 28_589_128,
  'convnext_s': 50_223_688,
  'convnext_b': 88_591_464,
  'convnext_mini': 1_294_728,
  'ctx_convnext_t': 33_949_668,
  'ctx_convnext_s': 59_611_494,
  'ctx_convnext_b': 104_159_810,
  'ctx_convnext_mini': 2_138_198,
  'resnet50': 25_557_032,
  'resnet_mini': 1_089_784,
  'ctx_resnet50': 27_971_582,
  'ctx_resnet_mini': 1_177_690,
}
# 80 classes on plain ConvNeXt-T: published to the million. 1e9 multiply-accumulates at 1280 x 800; published
# are 262 and 741.
DETECTOR_PARAMETERS = {'mask_rcnn': 48_095_376, 'cascade_mask_rcnn': 85_930_578}
DETECTOR_GMAC = {'mask_rcnn': 261.9, 'cascade_mask_rcnn': 740.2}
CONTEXTUAL_BLOCKS = {
  'ctx_convnext_t': '2.0 3.0 3.3 3.6 4.0',
  'ctx_convnext_s': '2.0 3.0 3.3 3.6 3.9 3.12 3.15 3.18 3.21 3.24 4.0',
  'ctx_convnext_b': '2.0 3.0 3.3 3.6 3.9 3.12 3.15 3.18 3.21 3.24 4.0',
  'ctx_convnext_mini': '2.0 3.0 4.0',
  'ctx_resnet50': '2.0 2.2 3.0 3.2 3.4 4.0 4.2',
  'ctx_resnet_mini': '2.0 3.0 4.0',
}

TINY = {'num_classes': 5, 'depths': (1, 1, 1, 1), 'dims': (8, 12, 16, 24)}
CONVNEXT = {'stem_stride': 2, 'layer_scale_init': 0.5}
CONTEXTUAL = {'embed_dim': 16, 'class_counts': (4, 3, 2)}


@functools.cache
def network(name, **keywords):
  """(model, variables, images): two images of 32 px; a ConvNeXt's stages have maps of 16, 8, 4, 2 pixels."""
  model = create_model(name, **TINY, **keywords)
  images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
  # As they start for users: differences tell little of networks whose gradients are not as well conditioned.
  variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))
  return model, moved(variables, 0.2, seed=0), images


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
  shapes = expected_variables(model)  # traced once, also for what reads weights for this network
  rng = np.random.default_rng(0)
  draw = {True: lambda shape: rng.uniform(0.5, 1.5, shape), False: lambda shape: rng.normal(0, 0.1, shape)}
  return model, jax.tree_util.tree_map_with_path(
    lambda path, leaf: np.asarray(draw[path[-1].key in ('scale', 'var')](leaf.shape), np.float32), shapes
  )


def slow_unless(names, *short):
  """The names as parameters, marked slow but for a few."""
  return [name if name in short else pytest.param(name, marks=pytest.mark.slow) for name in names]
