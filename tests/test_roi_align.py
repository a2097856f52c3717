"""RoIAlign on one map and on a pyramid: the numbers of torchvision and MMDetection, by either path."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_detection
from jax.extend.core import jaxprs_in_params
from op_cases import assert_close, assert_transforms
from roi_cases import compiled, draw, paths

from ctx_flax.ops import pyramid_roi_align, roi_align

INF, NAN = float('inf'), float('nan')
# On a map at a quarter of the resolution: more than two windows high, and more than one wide.
HW, SCALE = (37, 21), 0.25
BOXES = {
  'inside': (10.3, 12.7, 60.2, 48.9),
  'the map': (0, 0, 84, 148),
  'far beyond the map': (-300, -200, 500, 700),
  'over the upper left corner': (-20.5, -13.2, 33.3, 27.7),
  'over the lower right corner': (60, 100, 130, 180),
  'outside, above': (-100, -90, -40, -50),
  'outside, below': (400, 400, 500, 450),
  'a point': (20, 20, 20, 20),
  'a line': (20, 20, 20, 60),
  'smaller than a cell': (33.1, 44.2, 33.4, 44.3),
  'corners exchanged': (60, 50, 40, 30),
  'left and right exchanged': (60, 30, 40, 50),
  'high and thin': (8, 2, 11, 140),
  'up to a cell outside': (-4, -4, 4, 4),
  'infinite': (0, 0, INF, 10),
  'not a number': (NAN, 0, 10, 10),
}
ARRAY = np.array(list(BOXES.values()), np.float32)


@paths
@pytest.mark.parametrize('size, ratio', [((3, 2), 0), ((2, 3), 3)], ids=['adaptive', 'fixed'])
def test_equals_reference(path, size, ratio):
  features, cotangent = draw(*HW, 3), draw(len(ARRAY), *size, 3, seed=1)
  call = compiled(roi_align, size=size, scale=SCALE, sampling_ratio=ratio, path=path)
  value, d_features, d_boxes = call(features, ARRAY, cotangent)
  expected = reference_detection.roi_align(features, ARRAY, size, SCALE, ratio)
  for name, ours, theirs in zip(BOXES, value, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=2e-6, err_msg=name)
  gradient = reference_detection.roi_align_gradient(cotangent, ARRAY, HW, size, SCALE, ratio)
  assert_close(d_features, gradient, 2e-6)
  assert not np.any(d_boxes)


def test_boxes_that_are_empty_give_zeros():
  value = compiled(roi_align, size=(3, 2), scale=SCALE, sampling_ratio=0, path='windows')(
    np.ones((*HW, 3), np.float32), ARRAY, draw(len(ARRAY), 3, 2, 3)
  )[0]
  ones = dict(zip(BOXES, np.asarray(value[..., 0]), strict=True))
  for name in BOXES:
    inside = name in ('inside', 'the map', 'smaller than a cell', 'high and thin')
    empty = 'outside,' in name or 'exchanged' in name
    empty = empty or name in ('a point', 'a line', 'infinite', 'not a number')
    if inside:  # the weights of a bin add up to one
      np.testing.assert_allclose(ones[name], 1, rtol=1e-5, err_msg=name)
    elif empty:
      assert not ones[name].any(), name
    else:
      assert 0 < ones[name].mean() < 1 or name == 'up to a cell outside', name


def test_values_by_hand():
  # A ramp along x: a bin is the ramp at the mean of its samples. Cell centres lie at 0.5, 1.5, ... in boxes.
  ramp = np.broadcast_to(np.arange(8, dtype=np.float32)[None, :, None], (8, 8, 1))
  boxes = np.array([(1, 1, 5, 5), (2.5, 1, 3.5, 5), (-1, 1, 1, 5), (7, 1, 9.0, 5)], np.float32)
  value = compiled(roi_align, size=(1, 2), scale=1.0)(ramp, boxes, np.ones((4, 1, 2, 1), np.float32))[0]
  # The third: its left bin has its sample half a cell outside, at the border's value; the right one at 0. The
  # fourth likewise at the other border, with samples at 7 and 8 of which the last is moved to 7.
  np.testing.assert_allclose(value[:, 0, :, 0], [[1.5, 3.5], [2.25, 2.75], [0, 0], [7, 7]], atol=1e-6)


windows_first = pytest.mark.parametrize(
  'path', ['windows', pytest.param('separable', marks=pytest.mark.slow)]
)


# Both paths equal one reference above.
@windows_first
def test_released_roi_align(golden, path):
  arrays = golden('coco/roi_align')
  images, boxes = arrays['boxes'][:, 0], arrays['boxes'][:, 1:]
  calls = {size: compiled(roi_align_of_part, size=size, path=path) for size in (7, 14)}
  fixed = jax.jit(functools.partial(roi_align_of_part, size=7, sampling_ratio=2, path=path))
  for stride, image in itertools.product((4, 8, 16, 32), (0, 1)):
    # One shape, that of the finest map, and all boxes: what is compiled serves all. Dividing by a power of 2
    # is exact.
    features = arrays[f'feat_s{stride}'][image]
    h, w, _ = features.shape
    canvas = np.full(arrays['feat_s4'].shape[1:], 99, np.float32)
    canvas[:h, :w] = features
    arguments, own = ((canvas, np.array([h, w])), boxes / stride), images == image
    for size, call in calls.items():
      cotangent = np.where(own[:, None, None, None], arrays[f'cot_s{stride}_o{size}'], 0)
      value, (gradient, _), _ = call(*arguments, cotangent)
      np.testing.assert_allclose(value[own], arrays[f'out_s{stride}_o{size}'][own], atol=1e-5)
      assert_close(gradient[:h, :w], arrays[f'grad_s{stride}_o{size}'][image])
    value = fixed(*arguments)
    np.testing.assert_allclose(value[own], arrays[f'out_fixed2_s{stride}_o7'][own], atol=1e-5)


def roi_align_of_part(features, boxes, **options):
  features, valid = features
  return roi_align(features, boxes, scale=1.0, valid=valid, **options)


def test_images_and_devices():
  arguments = {'features': draw(9, 8, 2), 'boxes': ARRAY[:3]}
  assert_transforms(roi_align, arguments, draw(3, 2, 2, 2, seed=1), size=2, scale=SCALE)


@paths
def test_padding_beyond_the_valid_part_does_not_matter(path):
  h, w = 11, 14
  features = draw(*HW, 2)
  features[h:], features[:, w:] = 7, 9
  align = functools.partial(roi_align, size=2, scale=SCALE, path=path)

  @jax.jit
  def run(features, valid):
    value, pull_back = jax.vjp(lambda features: align(features, ARRAY, valid=valid), features)
    return value, pull_back(jnp.ones_like(value))[0]

  cropped = np.asarray(jax.jit(align)(features[:h, :w], ARRAY))
  value, gradient = jax.device_get(run(features, np.array([h, w])))
  np.testing.assert_allclose(value, cropped, atol=1e-6)
  assert_close(np.sum(value), np.sum(cropped), 1e-6)
  assert not gradient[h:].any() and not gradient[:, w:].any() and gradient[:h, :w].any()


@windows_first
def test_low_precision_features_are_added_up_in_float32(path):
  features, cotangent = (draw(*shape).astype(jnp.bfloat16) for shape in ((*HW, 2), (len(ARRAY), 3, 2, 2)))
  call = compiled(roi_align, size=(3, 2), scale=SCALE, path=path)
  value, gradient, _ = jax.device_get(call(features, ARRAY, cotangent))
  assert value.dtype == gradient.dtype == jnp.bfloat16
  expected = jax.device_get(call(features.astype(np.float32), ARRAY, cotangent.astype(np.float32)))
  # Rounded once, at the end.
  np.testing.assert_array_equal(value, expected[0].astype(jnp.bfloat16))
  np.testing.assert_array_equal(gradient, expected[1].astype(jnp.bfloat16))


def products(jaxpr):
  """The precisions of all products in a program and in the loops and rules inside it."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      yield equation.params['precision']
    for inner in jaxprs_in_params(equation.params):
      yield from products(inner)


@paths
def test_gpus_do_not_round_float32_features(path):
  """By default their products have 10 bits: an error of 1e-3."""
  call = compiled(roi_align, size=2, scale=SCALE, path=path)
  program = jax.make_jaxpr(call)(draw(*HW, 2), ARRAY, draw(len(ARRAY), 2, 2, 2))
  precisions = list(products(program.jaxpr))
  assert len(precisions) == 4 and set(precisions) == {(jax.lax.Precision.HIGHEST,) * 2}


def test_no_boxes():
  value = roi_align(draw(4, 4, 2), np.zeros((0, 4), np.float32), size=3, scale=1.0)
  assert value.shape == (0, 3, 3, 2)


FEATURES, FOUR = np.zeros((4, 4, 2), np.float32), np.zeros((3, 4), np.float32)
align = functools.partial(roi_align, size=2, scale=1.0)
align_pyramid = functools.partial(pyramid_roi_align, boxes=FOUR, size=2, strides=(4, 8))
REFUSED = {
  'an image axis': (
    lambda: align(FEATURES[None], FOUR),
    'features has shape (1, 4, 4, 2); expected (h, w, c)',
  ),
  'image numbers': (lambda: align(FEATURES, np.zeros((3, 5))), 'boxes has shape (3, 5); expected (n, 4)'),
  'size': (lambda: align(FEATURES, FOUR, size=0), 'size=0: expected an int or a pair of ints'),
  'scale': (lambda: align(FEATURES, FOUR, scale=0), 'scale=0: expected cells per pixel, more than 0'),
  'sampling ratio': (
    lambda: align(FEATURES, FOUR, sampling_ratio=-1),
    'sampling_ratio=-1: expected an int, 0',
  ),
  'valid': (lambda: align(FEATURES, FOUR, valid=np.ones((2, 2))), 'valid has shape (2, 2); expected (2,)'),
  'path': (
    lambda: align(FEATURES, FOUR, path='gather'),
    "path='gather': expected None or one of ('separable',",
  ),
  'strides': (lambda: align_pyramid([FEATURES]), '1 maps and 2 strides: expected as many'),
  'channels': (
    lambda: align_pyramid([FEATURES, FEATURES[..., :1]]),
    'maps[1] has shape (4, 4, 1); expected (h, w, c) = (h, w, 2)',
  ),
  'dtypes': (
    lambda: align_pyramid([FEATURES, FEATURES.astype(np.float16)]),
    'maps[1] has dtype float16; expected that of the first, float32',
  ),
  'valid_hw': (
    lambda: align_pyramid([FEATURES] * 2, valid_hw=np.ones(3)),
    'valid_hw has shape (3,); expected (2,)',
  ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_wrong_input_is_named(name):
  call, message = REFUSED[name]
  with pytest.raises(ValueError, match=re.escape(message)):
    call()
