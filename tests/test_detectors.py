"""Detectors: MMDetection's values stage by stage, and canvases larger than the images."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_detectors import compiled, golden_detector, inputs, random_variables, tiny

NAMES = 'mask_rcnn', 'cascade_mask_rcnn'


@pytest.mark.parametrize('name', NAMES)
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


# An image of 90 x 50 pixels: what a multiple of 32 makes of it, and a canvas of other images.
VALID, PADDED, CANVAS = (90, 50), (96, 64), (128, 160)


def alone_and_among_others(backbone, run, **keywords):
  """What `run`, of a model, says of the image as a batch of its own and as the second on a larger canvas."""
  sizes = {'dims': (8, 12, 16, 24), 'channels': 12, 'context_classes': 20, 'embed_dim': 16, 'branch_dim': 4}
  model = tiny(
    'mask_rcnn', backbone=backbone, test_pre_nms=60, test_proposals=30, detections=12, **sizes | keywords
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


def test_a_larger_canvas_changes_nothing_in_a_resnet():
  """Whose stem pools, and whose convolutions have strides; those of 2 read nothing beyond an even size."""

  def features(model, images, **sizes):
    pyramid, out = model.features(images, **sizes)
    return pyramid, out, *model.rpn(pyramid)

  run = lambda model: jax.jit(nn.apply(features, model))
  assert_equal_features(*alone_and_among_others('ctx_resnet_mini', run, contextual_every=1))
