"""Bilinear sampling: pixel centres on integers, zeros outside corner by corner, floor-based gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.test_util import check_grads
from op_cases import assert_close, assert_dtypes, assert_equals_reference, assert_refused, assert_transforms

from ctx_flax.ops import bilinear_sample

INF, NAN = float('inf'), float('nan')
# Three rows and four columns; no two differences of neighbours are equal.
IMAGE = np.array([[1, 2, 4, 8], [16, 32, 64, 128], [256, 512, 1024, 2048]], np.float32)[None, :, :, None]

# position (y, x), value, gradient (dy, dx)
HAND = {
  'on a pixel': ((1, 2), 64, (1024 - 64, 128 - 64)),
  'on the first pixel': ((0, 0), 1, (16 - 1, 2 - 1)),
  'between two columns': ((1, 0.5), 24, (384 - 24, 32 - 16)),
  'between two rows': ((0.25, 1), 0.75 * 2 + 0.25 * 32, (30, 0.75 * (4 - 2) + 0.25 * (64 - 32))),
  'between four': ((0.5, 0.5), 51 / 4, (48 / 2 - 3 / 2, (1 + 16) / 2)),
  'on the last pixel': ((2, 3), 2048, (-2048, -2048)),
  'half above': ((-0.5, 1), 1, (2, 0.5 * (4 - 2))),
  'half below': ((2.5, 0), 128, (-256, 0.5 * (512 - 256))),
  'quarter left': ((1, -0.25), 12, (0.75 * 256 - 12, 16)),
  'three quarters right': ((0, 3.75), 2, (0.25 * 128 - 2, -8)),
  'outside one corner': ((-0.5, -0.5), 0.25, (0.5, 0.5)),
  'outside the other': ((2.5, 3.5), 512, (-1024, -1024)),
  'one pixel above': ((-1, 1), 0, (2, 0)),  # on the kink: the next pixel down is in the image
  'one pixel below': ((3, 1), 0, (0, 0)),
  'far above': ((-1e4, 1), 0, (0, 0)),
  'beyond int32': ((3e38, -3e38), 0, (0, 0)),
  'infinite': ((INF, 1), 0, (0, 0)),
  'both infinite': ((-INF, INF), 0, (0, 0)),
}


@pytest.fixture(scope='module')
def hand_results():
  points = np.array([[point for point, _, _ in HAND.values()]], np.float32)
  value, pull_back = jax.vjp(bilinear_sample, IMAGE, points)
  d_image, d_points = pull_back(jnp.ones_like(value))
  return value[0, :, 0], d_points[0], d_image


@pytest.mark.parametrize('name', HAND)
def test_hand_values(hand_results, name):
  n = list(HAND).index(name)
  np.testing.assert_allclose(hand_results[0][n], HAND[name][1], rtol=1e-6)
  np.testing.assert_allclose(hand_results[1][n], HAND[name][2], rtol=1e-6)


def test_far_points_leave_the_image_gradient_finite(hand_results):
  # Each point spreads its four weights; what falls outside is lost.
  d_image = hand_results[2][0, :, :, 0]
  assert bool(jnp.all(jnp.isfinite(d_image)))
  np.testing.assert_allclose(d_image[2], [0.5, 0, 0, 1.25], atol=1e-6)


@pytest.mark.parametrize('point', [(NAN, 1), (1, NAN), (NAN, 50), (NAN, INF)])
def test_nan_propagates_and_stays_at_its_point(point):
  value = bilinear_sample(IMAGE, jnp.array([[point, (1, 2)]], jnp.float32))[0, :, 0]
  assert np.isnan(value[0]) and value[1] == 64


def draw(shape, b=2, h=4, w=5, c=3):
  random = np.random.default_rng(0)
  # Fractional parts in [0.25, 0.75]; about half of the points have a corner outside.
  points = random.integers(-2, 6, size=(b, *shape, 2)) + random.uniform(0.25, 0.75, size=(b, *shape, 2))
  arguments = {'image': random.normal(size=(b, h, w, c)), 'points': points}
  cotangent = random.normal(size=(b, *shape, c)).astype(np.float32)
  return {name: array.astype(np.float32) for name, array in arguments.items()}, cotangent


@pytest.mark.parametrize('shape', [(), (7,), (3, 2, 4)], ids=str)
def test_equals_reference(shape):
  assert_equals_reference(bilinear_sample, reference.bilinear_sample, *draw(shape))


def test_derivatives_in_both_modes():
  arguments, _ = draw((7,))
  check_grads(jax.jit(bilinear_sample), tuple(arguments.values()), 1, ('fwd', 'rev'), 5e-3, 5e-3, 1e-2)


def test_every_point_on_a_pixel_has_the_one_sided_gradient():
  arguments, cotangent = draw((7,))
  arguments['points'] = np.floor(arguments['points'])
  grads = assert_equals_reference(
    bilinear_sample, reference.bilinear_sample, arguments, cotangent, one_sided=('points',)
  )
  y, x = np.moveaxis(arguments['points'], -1, 0)
  seen = (y >= 0) & (y < 4) & (x >= 0) & (x < 5)
  assert seen.sum() > 3 and np.all(np.asarray(grads['points'])[seen] != 0)


def test_vmap_and_pmap():
  assert_transforms(bilinear_sample, *draw((7,)))


@pytest.mark.parametrize('points', ['float32', 'bfloat16'])
def test_dtypes(points):
  arguments, cotangent = draw((3, 2, 4))
  # Tolerance: two or three roundings to 8 bits, 2**-9 of the value each.
  assert_dtypes(bilinear_sample, arguments, cotangent, {'image': 'bfloat16', 'points': points}, 1e-2)


def test_positions_stay_float32_under_a_bfloat16_image():
  # At 57 pixels bfloat16 resolves a quarter of a pixel. The ramp is exact in it, and so is the answer.
  ramp = jnp.arange(-56.0, 8.0, dtype=jnp.bfloat16).reshape(1, 1, 64, 1)
  value = bilinear_sample(ramp, jnp.array([[[0.0, 57.375], [0.0, 60.625]]], jnp.float32))
  np.testing.assert_array_equal(np.asarray(value[0, :, 0], np.float32), [1.375, 4.625])


@pytest.mark.parametrize(
  ('name', 'wrong', 'message'),
  [
    ('image', (4, 5, 3), '(b, h, w, c)'),
    ('image', 'int32', 'a floating dtype'),
    ('points', (3, 7, 2), '(b, p, 2) = (2, p, 2)'),
    ('points', (2, 7, 3), '(b, p, 2) = (2, p, 2)'),
    ('points', (2,), '(b, 2) = (2, 2)'),
    ('points', 'int32', 'a floating dtype'),
  ],
  ids=str,
)
def test_wrong_input_is_named(name, wrong, message):
  assert_refused(bilinear_sample, draw((7,))[0], name, wrong, message)


def test_reference_by_hand():
  # The reference itself stands on the same hand values.
  for point, value, _ in HAND.values():
    assert_close(reference.bilinear_sample(IMAGE, np.array([[point]]))[0, 0, 0], value)
