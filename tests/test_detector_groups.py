"""Rates and weight decay of a detector's parameters: those of ConvNeXt's runs, and what stays as it is."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from ctx_flax.models import create_model
from ctx_flax.models.weights import flatten
from ctx_flax.torch_weights.names import find_source
from ctx_flax.training.parameter_groups import decay_mask, layer_factor
from ctx_flax.training.starting_point import rate_factor

SMALL = {'dims': (8, 8, 8, 8), 'channels': 8, 'hidden': 8, 'num_classes': 5}


def shapes_of(model):
  images = jnp.zeros((1, *model.example_shape()))
  return jax.eval_shape(lambda: model.init(jax.random.key(0), images))['params']


@pytest.mark.parametrize('name, decay', [('mask_rcnn', 0.95), ('cascade_mask_rcnn', 0.7)])
def test_rates_and_decay_of_convnext_t(name, decay, golden_folder):
  """Of every parameter, by the name that MMDetection gives it."""
  model = create_model(name, backbone='convnext_t', **SMALL)
  source = find_source('mmdet', type(model).__name__)
  params = shapes_of(model)
  factor, decays = layer_factor(decay, model), flatten({'params': decay_mask(params)})
  ours = {}
  for path, decayed in decays.items():
    ours[source.torch_name(path.split('/'))] = factor(path.removeprefix('params/')), 0.05 * decayed
  rows = (golden_folder / f'coco/lr_groups_{name}_convnext_t.tsv').read_text().splitlines()[1:]
  theirs = {}
  for row in rows:
    parameter, _, scale, weight_decay = row.split('\t')
    theirs[parameter] = float(scale), float(weight_decay)
  assert ours.keys() == theirs.keys()
  for parameter, expected in theirs.items():
    np.testing.assert_allclose(ours[parameter], expected, rtol=1e-8, err_msg=parameter)


def test_what_only_selects_classes_has_no_gradient_and_stays():
  """The image heads and tau of a contextual backbone; the class embeddings, which they refer to, stay too."""
  model = create_model(
    'mask_rcnn', backbone='ctx_convnext_mini', depths=(1, 1, 1, 1), context_classes=20, embed_dim=8, **SMALL
  )
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes_of(model))
  layers = params['backbone']['contextualizer']
  selecting = {name: layers[name] for name in ('head1', 'head2', 'head3', 'logit_scale')}

  def total(selecting):
    backbone = params['backbone'] | {'contextualizer': layers | selecting}
    variables = {'params': params | {'backbone': backbone}}
    pyramid, _ = model.apply(variables, jnp.ones((1, *model.example_shape())), method='features', train=True)
    return sum(x.sum() for x in pyramid)

  # Nothing is left to compile of a gradient that nothing reaches.
  gradients = jax.jit(jax.grad(total))(selecting)
  assert not any(gradient.any() for gradient in jax.tree.leaves(gradients))
  init = {'freeze': (), 'allow_missing': (), 'weights': 'RUN', 'pretrained_rate': 1.0}
  config = ml_collections.ConfigDict({'init': init})
  factor = rate_factor(config, network=model)
  stays = {path for path in flatten(layers) if factor(f'backbone/contextualizer/{path}') == 0}
  selecting_paths = set(flatten(selecting)) | {'class_embedding'}
  assert stays == selecting_paths
  assert (
    factor('backbone/contextualizer/merger2/inner/kernel')
    == factor('backbone/stage4_block0/dwconv/kernel')
    == 1
  )
