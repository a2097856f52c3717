"""Mask targets: MMDetection's, from packed masks or others, by either path."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_detection

from ctx_flax.ops import mask_targets

paths = pytest.mark.parametrize('path', ['windows', 'separable'])


# Masks of 70 x 136 pixels: more than one window of 64 in both directions.
def draw_masks():
  y, x = np.mgrid[:70, :136]
  discs = [(y - i) ** 2 + (x - j) ** 2 < r**2 for i, j, r in ((30, 40, 25), (50, 100, 33), (10, 128, 9))]
  noise = np.random.default_rng(0).uniform(size=(70, 136)) < 0.5
  return np.stack([*discs, noise])


MASK_BOXES = np.array(
  [
    (12.2, 3.3, 70.5, 60.6),
    (60, 10, 136, 70),
    (0, 0, 136, 70),
    (119, 1, 136, 19),
    (3, 3, 3.4, 3.3),
    (9, 9, 9, 20),
  ],
  np.float32,
)
ROWS = np.array([0, 1, 3, 2, 3, 1])


@paths
def test_mask_targets_equal_reference(path):
  masks = draw_masks()
  expected = reference_detection.mask_targets(masks, MASK_BOXES, ROWS, (5, 4))
  assert 0.2 < expected.mean() < 0.8 and expected[4:].sum() in (0, 20)
  call = jax.jit(functools.partial(mask_targets, size=(5, 4), path=path))
  for form in (masks, np.packbits(masks, -1)):
    targets = call(form, MASK_BOXES, ROWS)
    assert targets.dtype == jnp.float32
    np.testing.assert_array_equal(targets, expected)


def test_mask_targets_of_images_on_a_larger_canvas():
  masks = draw_masks()
  canvas = np.zeros((2, 4, 96, 160), bool)
  canvas[0, :, :70, :136], canvas[1, :, :70, :136] = masks, masks[::-1]
  canvas[:, :, 70:], canvas[..., 136:] = True, True  # which is not looked at
  call = jax.jit(
    jax.vmap(lambda masks, rows, valid: mask_targets(masks, MASK_BOXES, rows, size=6, valid=valid))
  )
  targets = call(np.packbits(canvas, -1), np.stack([ROWS, 3 - ROWS]), np.full((2, 2), (70, 136)))
  expected = jax.jit(functools.partial(mask_targets, size=6))(masks, MASK_BOXES, ROWS)
  for image in targets:
    np.testing.assert_array_equal(image, expected)


@paths
def test_released_mask_targets(golden, path):
  arrays = golden('coco/mask_target')
  masks = np.packbits(arrays['masks'], -1)
  call = jax.jit(functools.partial(mask_targets, path=path))
  np.testing.assert_array_equal(call(masks, arrays['boxes'], arrays['gt_index']), arrays['target'])


FOUR, BITS = np.zeros((3, 4), np.float32), np.zeros((2, 8, 1), np.uint8)
REFUSED = {
  'floating masks': (
    lambda: mask_targets(BITS.astype(np.float32), FOUR, np.zeros(3, int)),
    'masks has shape (2, 8, 1) and dtype float32; expected (g, h, w) bool, or packed bits',
  ),
  'rows': (
    lambda: mask_targets(BITS, FOUR, np.zeros(2, int)),
    'rows has shape (2,); expected (n,) = (3,)',
  ),
  'path': (
    lambda: mask_targets(BITS, FOUR, np.zeros(3, int), path='gather'),
    "path='gather': expected None or one of",
  ),
  'valid': (
    lambda: mask_targets(BITS, FOUR, np.zeros(3, int), valid=np.ones(3)),
    'valid has shape (3,); expected (2,)',
  ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_wrong_input_is_named(name):
  call, message = REFUSED[name]
  with pytest.raises(ValueError, match=re.escape(message)):
    call()
