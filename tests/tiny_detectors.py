"""Tiny detectors that several test files look at, and the values of MMDetection's of the same sizes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from initial_values import drawn, moved

from ctx_flax.layers.feature_pyramid import FeaturePyramid
from ctx_flax.models import create_model
from ctx_flax.models.weights import expected_variables, flatten, unflatten
from ctx_flax.torch_weights import load_torch_weights, names

# Those of the golden values.
TINY = {'backbone': 'convnext_mini', 'num_classes': 5, 'channels': 16, 'hidden': 24}
TINY |= {'dims': (8, 16, 24, 32), 'depths': (1, 1, 2, 1), 'test_pre_nms': 200, 'train_pre_nms': 200}
PROPOSALS = {'mask_rcnn': 100, 'cascade_mask_rcnn': 40}


def tiny(name, **keywords):
  """A tiny detector; keywords replace its attributes."""
  p = PROPOSALS[name]
  return create_model(name, **TINY | {'test_proposals': p, 'train_proposals': p} | keywords)


@functools.cache
def random_variables(model):
  """Variables for a detector, none at an initial zero or one. Boxes are moved a little, as trained ones are,
  and no mask is so sharp that rounding errors show."""
  variables = drawn(model, expected_variables(model))
  params = moved(variables['params'], 0.1)
  stages = range(model.stages)
  last = (
    ('rpn_head', 'reg'),
    *((f'box_head{s}', 'reg') for s in stages),
    *((f'mask_head{s}', 'logits') for s in stages),
  )
  for head, layer in last:
    params[head][layer] = jax.tree.map(lambda x: 0.1 * x, params[head][layer])
  return {**variables, 'params': params}


def golden_detector(golden, name):
  """(model, variables, file): MMDetection's parameters, and the values that it has with them."""
  arrays = golden(f'coco/{name.replace("mask_rcnn", "rcnn") if "cascade" in name else name}_tiny')
  state = {key[6:]: value.astype(np.float32) for key, value in arrays.items() if key.startswith('param.')}
  model = tiny(name)
  return model, load_torch_weights(state, model), arrays


def inputs(arrays):
  """The images of a golden file, and the keywords of a detector with which it saw them."""
  hw = jnp.asarray(arrays['img_hw'])
  return jnp.asarray(arrays['image'], jnp.float32), {
    'valid_hw': hw,
    'padded_hw': jnp.full_like(hw, jnp.array([96, 128])),
    'scale': jnp.asarray(arrays['scale_factor'])[:, 1::-1],
  }


WATCHED = 'features', 'rpn', 'proposals', 'box_head'


def detect(model, variables, images, **keywords):
  """(detections, {name: value, or of 'box_head' [(rois, logits, deltas), ...]} of what came before them)."""
  seen = {'box_head': []}

  def watch(call, arguments, options, context):
    value = call(*arguments, **options)
    if isinstance(context.module, FeaturePyramid):
      seen['maps'] = arguments[0]
    elif context.method_name == 'box_head':
      seen['box_head'].append((arguments[1], *value))
    elif context.method_name in WATCHED:
      seen[context.method_name] = value
    return value

  with nn.intercept_methods(watch):
    return model.apply(variables, images, **keywords), seen


@functools.cache
def compiled(model):
  """`detect` of a model under jit."""
  return jax.jit(functools.partial(detect, model))


def part_variables(module, arrays, path, there, x):
  """The variables of a part of a detector, from arrays 'param.NAME' with MMDetection's names in this part."""
  table = names.find_source('mmdet', 'MaskRCNN')
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
  flat = {}
  for name in flatten(shapes):
    collection, *rest = name.split('/')
    full = [collection, path, *rest]
    value = arrays['param.' + table.torch_name(full).removeprefix(there)]
    flat[name] = names.from_torch_layout(full, value, table)
  return unflatten(flat)
