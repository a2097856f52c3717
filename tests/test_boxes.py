"""Overlaps of boxes, the coding of one relative to another, clipping: as MMDetection's."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_detection
from jax.test_util import check_grads
from op_cases import assert_close

from ctx_flax.ops import box_iou, clip_boxes, decode_boxes, encode_boxes, generalised_box_iou

# Operation by operation, each would be compiled alone.
iou, generalised_iou = jax.jit(box_iou, static_argnames='eps'), jax.jit(generalised_box_iou)
encode = jax.jit(encode_boxes, static_argnames='stds')
decode = jax.jit(decode_boxes, static_argnames=('stds', 'max_ratio'))

SQUARE = (10.0, 10, 20, 20)
# other box: IoU and generalised IoU with SQUARE, by hand
HAND = {
  'the same': (SQUARE, 1, 1),
  'half of it': ((10, 10, 20, 15), 0.5, 0.5),
  'inside': ((12, 12, 16, 17), 0.2, 0.2),
  'around': ((0, 10, 40, 20), 0.25, 0.25),
  'corner': ((15, 15, 25, 25), 25 / 175, 25 / 175 - 50 / 225),
  'an edge in common': ((20, 10, 30, 20), 0, 0),
  'a corner in common': ((20, 20, 30, 30), 0, -0.5),
  'apart': ((40, 10, 50, 20), 0, -0.5),
  'without area': ((12, 12, 12, 18), 0, 0),
}
STDS = {
  '1': (1.0, 1.0, 1.0, 1.0),
  's0': (0.1, 0.1, 0.2, 0.2),
  's1': (0.05, 0.05, 0.1, 0.1),
  's2': (0.033, 0.033, 0.067, 0.067),
}


def draw(*shape, seed=0):
  random = np.random.default_rng(seed)
  corner, size = random.uniform(0, 50, (*shape, 2)), random.uniform(5, 40, (*shape, 2))
  return np.concatenate([corner, corner + size], -1).astype(np.float32)


@pytest.fixture(scope='module')
def overlaps_with_square():
  others = jnp.array([other for other, _, _ in HAND.values()], jnp.float32)
  square = jnp.array([SQUARE], jnp.float32)
  pairs = generalised_iou(jnp.broadcast_to(square, others.shape), others)
  return iou(square, others)[0], iou(others, square)[:, 0], pairs


@pytest.mark.parametrize('name', HAND)
def test_overlaps_by_hand(overlaps_with_square, name):
  n, expected = list(HAND).index(name), HAND[name][1:]
  one_way, other_way, generalised = (values[n] for values in overlaps_with_square)
  np.testing.assert_allclose((one_way, generalised), expected, rtol=1e-6, atol=1e-7)
  assert one_way == other_way


def test_overlaps_equal_reference():
  a, b = draw(6), draw(5, seed=1)
  np.testing.assert_allclose(iou(a, b), reference_detection.box_iou(a, b), rtol=1e-5)
  expected = reference_detection.generalised_box_iou(a[:5], b)
  np.testing.assert_allclose(generalised_iou(a[:5], b), expected, rtol=1e-5)


def test_two_boxes_without_area():
  empty = np.array([[3, 3, 3, 3], [5, 0, 5, 9]], np.float32)
  assert np.isnan(iou(empty, empty)).all()
  np.testing.assert_array_equal(iou(empty, empty, eps=1e-6), np.zeros((2, 2)))
  gradients = jax.jit(jax.value_and_grad(lambda a: jnp.sum(generalised_box_iou(a, empty))))
  assert all(np.isfinite(values).all() for values in gradients(empty))


def test_gradient_of_the_generalised_iou():
  check_grads(generalised_iou, (draw(4), draw(4, seed=1)), order=1, modes=['rev'], eps=1e-2)


def test_boxes_that_touch_get_the_gradient_of_overlapping_ones():
  # By x2: the overlap grows by 5, the union by 10 - 5; the union is 200, the hull 300.
  touching = np.array([[0, 0, 10, 10]], np.float32), np.array([[10, 5, 20, 15]], np.float32)
  gradient = jax.jit(jax.grad(lambda a, b: jnp.sum(generalised_box_iou(a, b))))(*touching)
  np.testing.assert_allclose(gradient[0, 2], 5 / 200 + 5 / 300, rtol=1e-6)


def test_released_generalised_iou(golden):
  """Odd pairs: the same, apart, inside, without area, corners exchanged, tiny, an edge in common."""
  arrays = golden('coco/rcnn_losses')
  loss, pull_back = jax.vjp(lambda a: 1 - generalised_iou(a, arrays['giou_target']), arrays['giou_pred'])
  np.testing.assert_allclose(loss, arrays['giou_loss'], atol=1e-6)
  np.testing.assert_allclose(pull_back(jnp.ones_like(loss))[0], arrays['giou_grad'], atol=1e-6)


def test_coding_by_hand():
  boxes, targets = jnp.array([[0.0, 0, 10, 20]]), jnp.array([[5.0, 10, 25, 20]])
  # The centre moves by a width and by a quarter of the height; twice as wide, half as high.
  deltas = np.array([[1, 0.25, np.log(2), -np.log(2)]])
  np.testing.assert_allclose(encode(boxes, targets), deltas, rtol=1e-6)
  np.testing.assert_allclose(encode(boxes, targets, stds=STDS['s0']), deltas / STDS['s0'], rtol=1e-6)
  np.testing.assert_allclose(decode(jnp.asarray(deltas, jnp.float32), boxes), targets, rtol=1e-6)


def test_decoding_undoes_encoding():
  boxes, targets = draw(3, 4), draw(3, 4, seed=1)
  deltas = encode(boxes, targets, stds=STDS['s2'])
  np.testing.assert_allclose(decode(deltas, boxes, stds=STDS['s2']), targets, rtol=1e-5, atol=1e-5)


def test_sizes_are_clipped_on_both_sides():
  boxes = jnp.array([[0.0, 0, 16, 16]])
  decoded = decode(jnp.array([[0.0, 0, 100, -100]]), boxes)[0]
  np.testing.assert_allclose(decoded, [8 - 500, 8 - 0.128, 8 + 500, 8 + 0.128], rtol=1e-5)
  decoded = decode(jnp.array([[0.0, 0, 100, -100]]), boxes, max_ratio=2)[0]
  np.testing.assert_allclose(decoded, [-8, 4, 24, 12], rtol=1e-6)


def test_clipping():
  boxes = jnp.array([[-5.0, -5, 5, 5], [90, 40, 120, 70], [200, -30, 300, -10], [1, 2, 3, 4]])
  expected = [[0, 0, 5, 5], [90, 40, 100, 50], [100, 0, 100, 0], [1, 2, 3, 4]]
  np.testing.assert_array_equal(clip_boxes(boxes, (50, 100)), expected)
  np.testing.assert_array_equal(jax.jit(clip_boxes)(boxes, jnp.array([50, 100])), expected)
  np.testing.assert_array_equal(decode(jnp.zeros((4, 4)), boxes, hw=(50, 100)), expected)


def test_released_coder(golden):
  arrays = golden('coco/box_coder')
  boxes, hw = arrays['boxes'], arrays['image_hw']
  for name, stds in STDS.items():
    deltas = arrays[f'delta_{name}']
    encoded = encode(boxes, arrays['gt'], stds=stds)
    assert_close(encoded, arrays[f'encode_{name}'], 1e-6)
    assert_close(decode(deltas, boxes, stds=stds), arrays[f'decode_{name}'], 1e-6)
    assert_close(decode(deltas, boxes, stds=stds, hw=hw), arrays[f'decode_clip_{name}'], 1e-6)
  # Three classes for each box.
  decoded = decode(arrays['delta_multi'].reshape(60, 3, 4), boxes[:, None], stds=STDS['s0'], hw=hw)
  assert_close(decoded, arrays['decode_multi_s0'].reshape(60, 3, 4), 1e-6)


def test_boxes_are_float32_whatever_the_network_computes_in():
  deltas = jnp.zeros((1, 4), jnp.bfloat16)
  boxes = jnp.array([[1001.0, 1003, 1101, 1105]])
  with jax.numpy_dtype_promotion('strict'):
    decoded = decode(deltas, boxes)
    assert decoded.dtype == jnp.float32
    np.testing.assert_array_equal(decoded, boxes)
    assert iou(boxes, deltas).dtype == jax.eval_shape(clip_boxes, deltas, (5, 5)).dtype == jnp.float32


def boxes_of(*shape, dtype=jnp.float32):
  return jnp.zeros(shape, dtype)


REFUSED = {
  'five coordinates': (
    lambda: box_iou(boxes_of(2, 5), boxes_of(2, 4)),
    'a has shape (2, 5); expected (n, 4)',
  ),
  'one box': (lambda: box_iou(boxes_of(2, 4), boxes_of(4)), 'b has shape (4,); expected (n, 4)'),
  'integers': (
    lambda: box_iou(boxes_of(2, 4, dtype=int), boxes_of(2, 4)),
    'a has dtype int32; expected a floating',
  ),
  'no pairs': (
    lambda: generalised_box_iou(boxes_of(2, 4), boxes_of(3, 4)),
    'b has shape (3, 4); expected that of a, (2, 4)',
  ),
  'a deviation of 0': (
    lambda: encode_boxes(boxes_of(2, 4), boxes_of(2, 4), stds=(1, 1, 0, 1)),
    'stds=(1, 1, 0, 1): expected four positive numbers',
  ),
  'fewer axes': (
    lambda: decode_boxes(boxes_of(2, 3, 4), boxes_of(2, 4)),
    'boxes has shape (2, 4) and deltas (2, 3, 4): expected as many axes',
  ),
  'a ratio of 1': (
    lambda: decode_boxes(boxes_of(2, 4), boxes_of(2, 4), max_ratio=1),
    'max_ratio=1: expected more than 1',
  ),
  'a batch of images': (lambda: clip_boxes(boxes_of(2, 4), (5, 5, 3)), 'hw has shape (3,); expected (2,)'),
  'three coordinates': (
    lambda: clip_boxes(boxes_of(2, 3), (5, 5)),
    'boxes has shape (2, 3); expected (..., 4)',
  ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_wrong_input_is_named(name):
  call, message = REFUSED[name]
  with pytest.raises(ValueError, match=re.escape(message)):
    call()
