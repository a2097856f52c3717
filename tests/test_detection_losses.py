"""The losses of detectors and their counts: MMDetection's values and gradients, and hand values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_flax.tasks.detection import losses
from ctx_flax.tasks.detection.anchor_losses import Targets, sampled_losses
from ctx_flax.tasks.detection.region_losses import box_losses
from ctx_flax.tasks.detection.regions import Regions
from ctx_flax.tasks.detection.sampling import Samples

STDS = 0.1, 0.1, 0.2, 0.2


def of_levels(arrays, name, *last):
  """All levels' values of two images, in one row each."""
  levels = [arrays[f'{name}{level}'].astype(np.float32).reshape(2, -1, *last) for level in range(5)]
  return np.concatenate(levels, 1)


def slots_of(labels, weights):
  """The samples that MMDetection drew, as Samples of two images: 0 is an object, 1 background."""
  size = (weights > 0).sum(1).max()
  indices, positive, valid = np.zeros((2, size), np.int32), *np.zeros((2, 2, size), bool)
  for image in range(2):
    both = [np.flatnonzero((weights[image] > 0) & (labels[image] == label)) for label in (0, 1)]
    drawn = np.concatenate(both)
    indices[image, : len(drawn)], valid[image, : len(drawn)] = drawn, True
    positive[image, : len(both[0])] = True
  return Samples(indices, positive, valid)


@pytest.mark.parametrize('name, beta', [('mask', 0.0), ('cascade', 1 / 9)])
def test_the_region_proposal_losses_of_mmdetection(name, beta, golden):
  arrays = golden('coco/rpn')
  samples = slots_of(arrays[f'{name}.labels'], arrays[f'{name}.label_weights'])
  assert [samples.positive.sum(), (samples.valid & ~samples.positive).sum()] == arrays[
    f'{name}.num_pos_neg'
  ].tolist()
  deltas = np.take_along_axis(arrays[f'{name}.bbox_targets'], samples.indices[..., None], 1)

  def loss(logits, moves):
    terms = sampled_losses(logits, moves, Targets(samples, deltas), jnp.ones(2, bool), beta)
    means = {key: total / count for key, (total, count) in terms.items()}
    return sum(means.values()), means

  run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
  (_, means), gradients = run(of_levels(arrays, 'cls'), of_levels(arrays, 'reg', 4))
  np.testing.assert_allclose(means['rpn_class'], arrays[f'{name}.loss_cls'].sum(), rtol=1e-6)
  np.testing.assert_allclose(means['rpn_box'], arrays[f'{name}.loss_bbox'].sum(), rtol=1e-6)
  expected = of_levels(arrays, f'{name}.grad_cls'), of_levels(arrays, f'{name}.grad_reg', 4)
  for actual, target in zip(gradients, expected, strict=True):
    np.testing.assert_allclose(actual, target, atol=1e-6 * np.abs(target).max())


@pytest.mark.parametrize(
  'name, kind, weight', [('l1', 'l1', 1), ('giou', 'giou', 10), ('giou_s2', 'giou', 10)]
)
def test_the_box_head_losses_of_mmdetection(name, kind, weight, golden):
  arrays = golden('coco/rcnn_losses')
  positive = np.arange(60)[None] < arrays['num_pos']
  labels, background = arrays['labels'][None], 6
  regions = Regions(
    arrays['rois'][None], np.arange(60)[None] * positive, labels, positive, np.ones((1, 60), bool), ~positive
  )
  assert (labels[~positive] == background).all()
  stds = tuple(arrays[f'{name}.stds'].tolist())

  def loss(logits, deltas):
    terms = box_losses(logits, deltas, regions, jnp.asarray(arrays['gt'])[None], stds, 30, kind)
    means = {key: total / count for key, (total, count) in terms.items()}
    return means['class'] + weight * means['box'], means

  run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
  (_, means), gradients = run(arrays['cls_score'][None], arrays['bbox_pred'].reshape(1, 60, 6, 4))
  np.testing.assert_allclose(means['class'], arrays[f'{name}.loss_cls'], rtol=1e-6)
  np.testing.assert_allclose(weight * means['box'], arrays[f'{name}.loss_bbox'], rtol=1e-6)
  expected = arrays[f'{name}.grad_cls'], arrays[f'{name}.grad_bbox'].reshape(60, 6, 4)
  for actual, target in zip(gradients, expected, strict=True):
    np.testing.assert_allclose(actual[0], target, atol=1e-6 * np.abs(target).max())


def test_the_mask_loss_of_mmdetection(golden):
  arrays = golden('coco/rcnn_losses')
  targets, labels = arrays['mask_target'][None].astype(np.float32), arrays['mask_labels']
  counted = jnp.ones((1, 9), bool)

  def run(logits):
    own = jnp.take_along_axis(logits, labels[None, :, None, None, None], -1)[..., 0]
    total, count = losses.mask_loss(own, targets, counted)
    return total / count

  loss, gradient = jax.jit(jax.value_and_grad(run))(arrays['mask_pred'][None])
  np.testing.assert_allclose(loss, arrays['mask_loss'][0], rtol=1e-6)
  np.testing.assert_allclose(gradient[0], arrays['mask_grad'], atol=1e-9)


def test_smooth_l1_by_hand():
  """0.5 d^2 / beta below beta, d - beta / 2 above; beta 0 is L1; what does not count adds nothing."""
  deltas = jnp.array([[[0.05, 0.2, -0.2, 0.0], [9.0, 9.0, 9.0, 9.0]]])
  counted = jnp.array([[True, False]])
  zeros = jnp.zeros((1, 2, 4))
  np.testing.assert_allclose(losses.smooth_l1_loss(deltas, zeros, counted), 0.45, rtol=1e-6)
  expected = 0.05**2 / 0.2 + 2 * (0.2 - 0.05)
  np.testing.assert_allclose(losses.smooth_l1_loss(deltas, zeros, counted, 0.1), expected, rtol=1e-6)


def test_the_count_of_proposals_is_at_least_one_of_each_kind_per_image():
  positive = jnp.array([[True, True, False, False], [False] * 4, [False] * 4, [True] * 4])
  valid = jnp.array([[True] * 4, [True, True, False, False], [False] * 4, [True] * 4])
  present = jnp.array([True, True, True, False])
  assert losses.proposal_count(positive, valid, present) == (2 + 2) + (1 + 2) + (1 + 1)


@pytest.mark.parametrize('kind', ['l1', 'giou'])
def test_empty_slots_and_background_add_nothing_and_stay_finite(kind):
  """One negative and one empty slot: the class loss counts the first, boxes have loss and gradient 0."""
  zeros = jnp.zeros((1, 2, 4))
  regions = Regions(
    zeros,
    jnp.zeros((1, 2), jnp.int32),
    jnp.full((1, 2), 3),
    jnp.zeros((1, 2), bool),
    jnp.array([[True, False]]),
    jnp.zeros((1, 2), bool),
  )
  logits = jnp.zeros((1, 2, 4))

  def loss(deltas):
    terms = box_losses(logits, deltas, regions, zeros, STDS, 2, kind)
    return terms['box'][0], terms

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (total, terms), gradient = run(jnp.ones((1, 2, 3, 4)))
  assert total == 0 and not gradient.any()
  np.testing.assert_allclose(terms['class'], (np.log(4), 1), rtol=1e-6)
  assert terms['box'][1] == 1


def test_no_positive_region_is_a_mask_loss_of_zero():
  total, count = losses.mask_loss(jnp.ones((2, 3, 4, 4)), jnp.ones((2, 3, 4, 4)), jnp.zeros((2, 3), bool))
  assert (total, count) == (0, 0)
