"""Detectors: MMDetection's values stage by stage, and canvases larger than the images."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import slow_unless
from tiny_detectors import compiled, detect, golden_detector, inputs, random_variables, tiny

from ctx_flax.models.weights import flatten

NAMES = 'mask_rcnn', 'cascade_mask_rcnn'


@pytest.mark.parametrize('name', slow_unless(NAMES, 'mask_rcnn'))
def test_the_values_of_mmdetection(golden, name):
  model, variables, arrays = golden_detector(golden, name)
  images, keywords = inputs(arrays)
  found, seen = compiled(model)(variables, images, **keywords)

  def close(value, key, atol):
    expected = arrays[f'eval.{key}']
    np.testing.assert_allclose(np.reshape(value, expected.shape), expected, rtol=0, atol=atol, err_msg=key)

  for i in range(4):
    close(seen['maps'][i], f'backbone{i}', 1e-5)
  for i in range(5):
    close(seen['features'][0][i], f'fpn{i}', 5e-5)  # up to 15
    close(seen['rpn'][0][i], f'rpn_cls{i}', 5e-5)
    close(seen['rpn'][1][i], f'rpn_reg{i}', 1e-5)
  for i in range(2):
    boxes, scores, valid = (array[i] for array in seen['proposals'])
    assert np.all(valid)
    close(np.c_[boxes, scores], f'proposals{i}', 3e-4)
  assert len(seen['box_head']) == model.stages
  for stage, (rois, logits, deltas) in enumerate(seen['box_head']):
    close(np.c_[np.repeat([0, 1], rois.shape[1]), rois.reshape(-1, 4)], f'stage{stage}.rois', 3e-4)
    close(logits, f'stage{stage}.cls_score', 1e-3)  # up to 30
    close(deltas, f'stage{stage}.bbox_pred', 2e-4)
  assert not np.any(found.overflow)
  for i in range(2):
    labels = arrays[f'eval.labels{i}']
    assert np.sum(found.valid[i]) == len(labels)
    np.testing.assert_array_equal(found.labels[i, : len(labels)], labels)
    close(np.c_[found.boxes[i], found.scores[i]][: len(labels)], f'dets{i}', 3e-4)
    close(found.masks[i, : len(labels)], f'mask_prob{i}', 5e-4)


# An image whose height is a multiple of 32, so that boxes reach its end, its width as one, and a canvas.
VALID, PADDED, CANVAS = (96, 50), (96, 64), (128, 160)


def alone_and_among_others(backbone, run, **keywords):
  """What `run`, of a model, says of the image as a batch of its own and as the second on a larger canvas."""
  sizes = {'dims': (8, 12, 16, 24), 'channels': 12, 'context_classes': 20, 'embed_dim': 16, 'branch_dim': 4}
  model = tiny(
    'mask_rcnn', backbone=backbone, test_pre_nms=300, test_proposals=150, detections=20, **sizes | keywords
  )
  canvas = np.random.default_rng(0).normal(size=(2, *CANVAS, 3)).astype(np.float32)  # no zeros are asked for
  variables, (h, w) = random_variables(model), PADDED
  alone = run(model)(variables, canvas[1:, :h, :w], valid_hw=jnp.array([VALID]))
  sizes = {'valid_hw': jnp.array([CANVAS, VALID]), 'padded_hw': jnp.array([CANVAS, PADDED])}
  return alone, run(model)(variables, canvas, **sizes)


def assert_equal_features(alone, among):
  """Of (pyramid, intermediates, logits, deltas)."""
  for name in ('context2', 'context3', 'context4', 'scores3'):
    assert_close(among[1][name][1:], alone[1][name])
  for part in (0, 2, 3):
    for value, target in zip(among[part], alone[part], strict=True):
      assert_close(value[1:, : target.shape[1], : target.shape[2]], target)


def assert_close(value, target):
  target = np.asarray(target)
  np.testing.assert_allclose(value, target, rtol=0, atol=1e-5 * max(1.0, np.abs(target).max()))


@pytest.mark.slow
def test_a_larger_canvas_changes_nothing():
  """Neither in Contextual ConvNeXt, whose first stage is plain, nor in what follows from it."""
  (expected, before), (found, seen) = alone_and_among_others('ctx_convnext_mini', compiled)
  assert_equal_features(*((*s['features'], *s['rpn']) for s in (before, seen)))
  for kind in ('proposals', 'box_head'):
    jax.tree.map(lambda value, target: assert_close(value[1:], target), seen[kind], before[kind])
  assert np.sum(expected.valid) > 3
  jax.tree.map(lambda value, target: assert_close(value[1:], target), found, expected)
  # The other image fills the canvas: it has an answer of its own.
  assert np.sum(found.valid[0]) > 3 and np.any(found.boxes[0, :, 3] > PADDED[0])


@pytest.mark.slow  # of the backbone alone it is among the tests of networks
def test_a_larger_canvas_changes_nothing_in_a_resnet():
  """Whose stem pools, and whose convolutions have strides; those of 2 read nothing beyond an even size."""

  def features(model, images, **sizes):
    pyramid, out = model.features(images, **sizes)
    return pyramid, out, *model.rpn(pyramid)

  run = lambda model: jax.jit(nn.apply(features, model))
  assert_equal_features(*alone_and_among_others('ctx_resnet_mini', run, contextual_every=1))


@pytest.mark.slow
def test_every_parameter_that_learns_receives_a_gradient():
  model = tiny(
    'cascade_mask_rcnn', backbone='ctx_convnext_mini', context_classes=20, embed_dim=16, branch_dim=4
  )
  variables = random_variables(model)
  images = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
  rois = jnp.array([[[3.0, 5.0, 40.0, 50.0], [0.0, 0.0, 64.0, 30.0]]])

  def answers(model):
    pyramid, _ = model.features(images)
    boxes = [model.box_head(pyramid, rois, stage=stage) for stage in range(model.stages)]
    return model.rpn(pyramid), boxes, [model.mask_head(pyramid, rois, stage=s) for s in range(model.stages)]

  def loss(params):
    leaves = jax.tree.leaves(nn.apply(answers, model)({**variables, 'params': params}))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    weigh = lambda key, x: jnp.sum(jax.random.normal(key, x.shape) * x)
    return sum(map(weigh, keys, leaves))

  for name, value in flatten(jax.jit(jax.grad(loss))(variables['params'])).items():
    fixed = any(re.fullmatch(pattern, name) for pattern in model.fixed_parameters)
    assert np.abs(value).max() > 1e-6 or fixed, name
    if re.search(r'contextualizer/(head\d|logit_scale)', name):
      assert fixed and not np.any(value), name  # they only select


@pytest.mark.slow
def test_bfloat16_keeps_boxes_and_scores_in_float32():
  model = tiny('mask_rcnn', dtype='bfloat16')
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  found, seen = jax.eval_shape(lambda x: detect(model, random_variables(model), x), images)
  assert {x.dtype for x in seen['features'][0]} == {jnp.dtype(jnp.bfloat16)}
  numbers = [seen['rpn'], seen['proposals'].boxes, seen['box_head'], found.boxes, found.scores, found.masks]
  assert {x.dtype for x in jax.tree.leaves(numbers)} == {jnp.dtype(jnp.float32)}
