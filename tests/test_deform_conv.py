"""Deformable convolution: reference, hand values, groups, kernels per image, gradients, dtypes, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.test_util import check_grads
from op_cases import (
  CASES,
  Case,
  assert_close,
  assert_dtypes,
  assert_equals_reference,
  assert_refused,
  assert_transforms,
  compiled,
  draw,
  exactly_rounded,
)

from ctx_flax.ops import deform_conv

PLAIN = CASES['plain']
NAMES = 'x kernel offsets mask'
# What only this operation has: groups, offset groups, no mask, a bias, shared kernels.
EXTRAS: dict[str, tuple[str, dict]] = {
  'shared': (NAMES + ' bias', {}),
  'no_mask': ('x kernel offsets', {}),
  'groups': (NAMES, {'groups': 2}),
  'groups_per_image': (NAMES + ' bias', {'groups': 2, 'per_image': True}),
  'depthwise': (NAMES, {'groups': 4, 'depthwise': True}),
  'offset_groups': (NAMES, {'offset_groups': (2,)}),
  'offset_groups_no_mask': ('x kernel offsets', {'offset_groups': (4,), 'groups': 2}),
}


# Another geometry, or the hand values below, have what is special of these.
SLOW = 'dilated', 'kernel1', 'wide', 'kernel5'


@pytest.mark.parametrize('name', [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in CASES])
def test_equals_reference(name):
  case = CASES[name]
  arguments, cotangent = draw(case, NAMES, per_image=True)
  assert_equals_reference(deform_conv, reference.deform_conv, arguments, cotangent, **case.options)


@pytest.mark.parametrize('name', EXTRAS)
def test_extras_equal_reference(name):
  names, how = EXTRAS[name]
  case = Case(bhw=(2, 3, 4))
  options = case.options | {'groups': how.get('groups', 1)}
  assert_equals_reference(deform_conv, reference.deform_conv, *draw(case, names, **how), **options)


@pytest.mark.parametrize(
  ('offset', 'expected'),
  [
    ((0, 0), 64),  # on the pixel (1, 2)
    ((0.5, -0.5), (32 + 64 + 512 + 1024) / 4),
    ((1, 1), 2048),  # the last pixel
    ((1.5, 0), 512),  # half outside
    ((-1.5, -2.5), 0.25),  # outside one corner
    ((2, 0), 0),  # one pixel outside
    ((-1e9, 0), 0),
    ((0, float('inf')), 0),
    ((float('-inf'), float('-inf')), 0),
    ((float('nan'), 0), float('nan')),
  ],
  ids=str,
)
def test_hand_values_of_one_tap(offset, expected):
  x = np.array([[1, 2, 4, 8], [16, 32, 64, 128], [256, 512, 1024, 2048]], np.float32)[None, :, :, None]
  offsets = np.zeros((1, 3, 4, 1, 2), np.float32)
  offsets[0, 1, 2, 0] = offset
  arguments = {'x': x, 'kernel': np.full((1, 1, 1, 1), 3, np.float32), 'offsets': offsets}
  value, grads = compiled(deform_conv)(arguments, np.ones((1, 3, 4, 1), np.float32))
  expected_map = 3 * x[..., 0]
  expected_map[0, 1, 2] = 3 * expected
  np.testing.assert_allclose(value[..., 0], expected_map, rtol=1e-6)
  if not np.isnan(expected):
    assert all(bool(jnp.all(jnp.isfinite(grad))) for grad in grads.values())


def test_offsets_of_zero_are_the_plain_convolution():
  case = CASES['rectangular']
  arguments, cotangent = draw(case, 'x kernel offsets')
  arguments['offsets'] *= 0
  value, _ = compiled(deform_conv, **case.options)(arguments, cotangent)
  plain = jax.lax.conv_general_dilated(
    arguments['x'],
    arguments['kernel'],
    (1, 2),
    [(1, 1), (0, 0)],
    rhs_dilation=(1, 2),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  assert_close(value, plain)


def test_first_offset_is_down_and_the_second_right():
  x = np.arange(20, dtype=np.float32).reshape(1, 4, 5, 1)
  kernel, offsets = np.ones((1, 1, 1, 1), np.float32), np.zeros((1, 4, 5, 1, 2), np.float32)
  offsets[..., 0] = 1
  function = jax.jit(deform_conv)
  np.testing.assert_array_equal(np.asarray(function(x, kernel, offsets))[:, :3], x[:, 1:])
  right = np.asarray(function(x, kernel, offsets[..., ::-1]))
  np.testing.assert_array_equal(right[:, :, :4], x[:, :, 1:])


@pytest.mark.parametrize('name', ['plain', 'same'])
def test_gradient_at_offsets_of_zero_is_one_sided(name):
  case = CASES[name]
  arguments, cotangent = draw(case, NAMES, per_image=True)
  arguments['offsets'] *= 0
  slow = reference.deform_conv
  grads = assert_equals_reference(
    deform_conv, slow, arguments, cotangent, one_sided=('offsets',), **case.options
  )
  # The central taps lie in the image, so nothing but chance could make them zero.
  assert np.all(np.asarray(grads['offsets'])[:, :, :, 4] != 0)


def test_derivatives_in_both_modes():
  arguments, _ = draw(Case(bhw=(1, 3, 4)), NAMES)
  function = jax.jit(lambda *a: deform_conv(*a, padding=1))
  check_grads(function, tuple(arguments.values()), 1, ('fwd', 'rev'), 5e-3, 5e-3, 1e-2)


def test_kernels_per_image_are_a_loop_over_images():
  arguments, cotangent = draw(PLAIN, NAMES, per_image=True)
  value, grads = compiled(deform_conv, **PLAIN.options)(arguments, cotangent)
  for n in range(2):
    one = {name: array[n] if name == 'kernel' else array[n : n + 1] for name, array in arguments.items()}
    value_n, grads_n = compiled(deform_conv, **PLAIN.options)(one, cotangent[n : n + 1])
    grads_n['kernel'] = grads_n['kernel'][None]
    assert_close(value[n : n + 1], value_n)
    assert_close({name: grad[n : n + 1] for name, grad in grads.items()}, grads_n)


def test_vmap_and_pmap():
  case = CASES['strided']
  assert_transforms(deform_conv, *draw(case, NAMES, per_image=True), **case.options)


@pytest.mark.parametrize(
  'dtypes',
  [
    'bfloat16',
    {'x': 'bfloat16', 'kernel': 'float32', 'offsets': 'float32', 'mask': 'float32'},
    {'x': 'float32', 'kernel': 'bfloat16', 'offsets': 'bfloat16', 'mask': 'bfloat16'},
  ],
  ids=['low', 'low_x', 'float32_x'],
)
def test_dtypes(dtypes):
  arguments, cotangent = draw(PLAIN, NAMES, per_image=True)
  # Samples are rounded to 8 bits before and after the mask, and so is each cotangent on the way back.
  if not isinstance(dtypes, dict):
    dtypes = dict.fromkeys(arguments, dtypes)
  assert_dtypes(deform_conv, arguments, cotangent, dtypes, 2e-2, **PLAIN.options)


def test_positions_stay_float32_under_bfloat16():
  # At 57 pixels bfloat16 resolves a quarter of a pixel. Ramp, offset and answer are exact in it.
  ramp = np.arange(-56, 8).reshape(1, 1, 64, 1)
  offsets = np.broadcast_to([0, 0.375], (1, 1, 64, 1, 2))
  inputs = (array.astype(jnp.bfloat16) for array in (ramp, np.ones((1, 1, 1, 1)), offsets))
  y = np.asarray(exactly_rounded(deform_conv)(*inputs), np.float32)
  np.testing.assert_array_equal(y[0, 0, 26:63, 0], np.arange(-30, 7) + 0.375)


@pytest.mark.parametrize(
  ('name', 'wrong', 'message'),
  [
    ('x', (5, 6, 4), '(b, h, w, c)'),
    ('x', 'int32', 'a floating dtype'),
    ('kernel', (3, 3, 5, 6), '(kh, kw, c/groups, d) = (kh, kw, 4, d)'),
    ('kernel', (3, 3, 4), '(kh, kw, c/groups, d) = (kh, kw, 4, d)'),
    ('kernel', (3, 3, 3, 4, 6), '(b, kh, kw, c/groups, d) = (2, kh, kw, 4, d)'),
    ('kernel', 'int32', 'a floating dtype'),
    ('offsets', (2, 5, 6, 8, 2), '(b, u, v, k, 2) = (2, 5, 6, 9, 2)'),
    ('offsets', (2, 5, 6, 18), '(b, u, v, k, 2) = (2, 5, 6, 9, 2)'),
    ('offsets', (2, 3, 4, 9, 2), '(b, u, v, k, 2) = (2, 5, 6, 9, 2)'),
    ('offsets', (2, 5, 6, 2, 8, 2), '(b, u, v, g, k, 2) = (2, 5, 6, g, 9, 2)'),
    ('offsets', 'int32', 'a floating dtype'),
    ('mask', (2, 5, 6, 9, 1), '(b, u, v, k) = (2, 5, 6, 9)'),
    ('mask', (1, 5, 6, 9), '(b, u, v, k) = (2, 5, 6, 9)'),
    ('mask', 'bool', 'a floating dtype'),
    ('bias', (4,), '(d) = (6)'),
    ('bias', 'int32', 'a floating dtype'),
  ],
  ids=str,
)
def test_wrong_input_is_named(name, wrong, message):
  arguments, _ = draw(PLAIN, NAMES + ' bias')
  assert_refused(deform_conv, arguments, name, wrong, message, **PLAIN.options)


def test_wrong_shapes_beside_offset_groups_are_named():
  arguments, _ = draw(PLAIN, NAMES, offset_groups=(2,))
  assert_refused(
    deform_conv, arguments, 'mask', (2, 5, 6, 9), '(b, u, v, g, k) = (2, 5, 6, 2, 9)', **PLAIN.options
  )
  arguments['offsets'] = np.zeros((2, 5, 6, 3, 9, 2), np.float32)
  with pytest.raises(
    ValueError, match=r'offsets has shape \(2, 5, 6, 3, 9, 2\).*3 offset groups.* 4 channels'
  ):
    deform_conv(**arguments, **PLAIN.options)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'strides': 0}, 'strides=0: expected an int or a pair of ints, each at least 1'),
    ({'strides': 1.5}, 'strides=1.5: expected'),
    ({'strides': (1, 1, 1)}, r'strides=\(1, 1, 1\): expected'),
    ({'dilation': (1, 0)}, r'dilation=\(1, 0\): expected'),
    ({'padding': -1}, "padding=-1: expected 'SAME', 'VALID', an int"),
    ({'padding': 'HALF'}, "padding='HALF': expected 'SAME', 'VALID', an int"),
    ({'padding': (1, 2, 3)}, r'padding=\(1, 2, 3\): expected'),
    ({'groups': 3}, 'groups=3 must be a positive divisor of the 4 channels of x'),
    ({'groups': 0}, 'groups=0 must be a positive divisor of the 4 channels of x'),
    ({'padding': 0, 'dilation': 3}, r'x has 5 x 6 pixels, too few for kernel size \(3, 3\)'),
  ],
  ids=str,
)
def test_wrong_options_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    deform_conv(**draw(PLAIN, NAMES)[0], **(PLAIN.options | options))


def test_output_channels_must_divide_into_groups():
  arguments, _ = draw(PLAIN, NAMES, groups=2)
  arguments['kernel'] = arguments['kernel'][..., :5]
  with pytest.raises(ValueError, match=r'kernel has 5 output channels .*not divisible by groups=2'):
    deform_conv(**arguments, groups=2, **PLAIN.options)
