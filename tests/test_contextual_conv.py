"""Contextual convolutions: one step = two steps = reference, in value and in every gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contextual_cases import FUNCTIONS, NAMES, both
from jax.test_util import check_grads
from op_cases import (
  CASES,
  Case,
  assert_close,
  assert_dtypes,
  assert_equals_reference,
  assert_transforms,
  cast,
  compiled,
  draw,
  exactly_rounded,
)

from ctx_flax.ops import deform_conv
from ctx_flax.ops.contextual_conv import PATHS
from ctx_flax.ops.contextual_gradients import images_at_once


def two_steps(arguments, cotangent, kind, case):
  """Value and gradients by deform_conv with one whole kernel W + dW per image."""
  kernel, delta = arguments['kernel'], arguments['kernel_delta']
  depthwise = kind == 'depthwise'
  kernels = kernel[None] + (delta[:, :, :, None] if depthwise else delta[..., None])
  groups = {'groups': case.c} if depthwise else {}
  rest = {name: arguments[name] for name in ('x', 'offsets', 'mask')}
  value, grads = compiled(deform_conv, **groups, **case.options)(rest | {'kernel': kernels}, cotangent)
  d_kernels = grads['kernel'].astype(jnp.float32)
  d_delta = d_kernels[:, :, :, 0] if depthwise else jnp.sum(d_kernels, -1)
  return value, grads | {'kernel': jnp.sum(d_kernels, 0), 'kernel_delta': d_delta}


later = functools.partial(pytest.param, marks=pytest.mark.slow)
# The dense one is slow to compile, and what follows it is the same.
depthwise_first = pytest.mark.parametrize('kind', [later('dense'), 'depthwise'])


def only(*names):
  """All cases, of which these are tested by default: test_deform_conv.py has the geometries of the others."""
  return pytest.mark.parametrize('name', [name if name in names else later(name) for name in CASES])


# The reference says the same of every case; two steps are slow to compile.
@both
@only('strided')
def test_one_step_equals_two_steps(kind, name):
  case = CASES[name]
  arguments, cotangent = draw(case, NAMES, depthwise=kind == 'depthwise')
  actual = compiled(FUNCTIONS[kind][0], **case.options)(arguments, cotangent)
  assert_close(actual, two_steps(arguments, cotangent, kind, case), 5e-6)


@both
@pytest.mark.slow  # test_dtypes compares with float32
@pytest.mark.parametrize('name', ['plain', 'strided'])
def test_one_step_equals_two_steps_in_bfloat16(kind, name):
  case = CASES[name]
  arguments, cotangent = draw(case, NAMES, depthwise=kind == 'depthwise')
  low, low_cotangent = cast(arguments, jnp.bfloat16), jnp.asarray(cotangent).astype(jnp.bfloat16)
  actual = compiled(FUNCTIONS[kind][0], **case.options)(low, low_cotangent)
  # The two steps round samples and kernels to 8 bits where the one step keeps float32.
  assert_close(actual, two_steps(low, low_cotangent, kind, case), 2e-2)


@both
@only('plain', 'strided', 'rectangular', 'kernel7')
def test_equals_reference(kind, name):
  case = CASES[name]
  function, slow = FUNCTIONS[kind]
  arguments, cotangent = draw(case, NAMES, depthwise=kind == 'depthwise')
  assert_equals_reference(function, slow, arguments, cotangent, **case.options)


@both
@pytest.mark.parametrize('path', PATHS)
def test_every_path_gives_the_same(kind, path):
  case = CASES['strided']
  function, slow = FUNCTIONS[kind]
  arguments, cotangent = draw(case, NAMES, depthwise=kind == 'depthwise')
  expected = compiled(function, **case.options)(arguments, cotangent)
  assert_close(compiled(function, path=path, **case.options)(arguments, cotangent), expected)
  assert_equals_reference(function, slow, arguments, cotangent, path=path, **case.options)


@depthwise_first
def test_images_in_turn_give_what_all_together_give(kind):
  """Six images, of which three at a time fit into the cache; and what the shared kernel gets adds up."""
  case = Case(bhw=(6, 20, 20), c=128, d=4)
  arguments, cotangent = draw(case, NAMES, depthwise=kind == 'depthwise')
  assert images_at_once(arguments['x']) == 3
  found = [
    compiled(FUNCTIONS[kind][0], path=path, **case.options)(arguments, cotangent)
    for path in ('one_step', 'one_step_cpu')
  ]
  assert_close(*found)


@both
def test_a_batch_without_images(kind):
  arguments, _ = draw(CASES['plain'], NAMES, depthwise=kind == 'depthwise')
  arguments = {name: array if name == 'kernel' else array[:0] for name, array in arguments.items()}
  d = arguments['kernel'].shape[-1]
  value, grads = compiled(FUNCTIONS[kind][0], **CASES['plain'].options)(
    arguments, np.zeros((0, 5, 6, d), np.float32)
  )
  assert value.shape[0] == 0
  assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, arguments)
  np.testing.assert_array_equal(grads['kernel'], 0)


@pytest.mark.parametrize(
  ('kind', 'names'),
  [
    ('dense', 'x kernel kernel_delta offsets'),
    later('depthwise', 'x kernel kernel_delta offsets'),
    later('depthwise', 'x kernel offsets mask'),
    ('depthwise', 'x kernel offsets'),
  ],
)
def test_mask_and_delta_may_be_none(kind, names):
  function, slow = (functools.partial(f, **left_out(names)) for f in FUNCTIONS[kind])
  case = Case(bhw=(2, 3, 4))
  arguments, cotangent = draw(case, names, depthwise=kind == 'depthwise')
  assert_equals_reference(function, slow, arguments, cotangent, **case.options)


def left_out(names):
  return {name: None for name in NAMES.split() if name not in names.split()}


@both
@pytest.mark.parametrize('path', PATHS)
def test_hand_values_of_one_tap(kind, path):
  # One tap at twelve positions; W + dW = 3 in the first image and 1 in the second, the mask is a half.
  image = np.array([[1, 2, 4, 8], [16, 32, 64, 128], [256, 512, 1024, 2048]], np.float32)
  inf, nan = float('inf'), float('nan')
  points = [
    [(1, 2), (0.5, 0.5), (2, 3), (-0.5, 1)],  # pixel, between four, last pixel, half outside
    [(2.5, 3.5), (-1, 0), (-2.5, 0), (3e9, 1)],  # one corner inside, just outside, outside, beyond int32
    [(inf, 0), (-inf, inf), (nan, 1), (1, nan)],
  ]
  values = np.array([[64, 51 / 4, 2048, 1], [512, 0, 0, 0], [0, 0, nan, nan]], np.float32)
  here = np.stack(np.meshgrid(np.arange(3), np.arange(4), indexing='ij'), -1)
  arguments = {
    'x': np.stack([image] * 2)[..., None],
    'kernel': np.full((1, 1, 1, 1), 2, np.float32),
    'kernel_delta': np.array([1, -1], np.float32).reshape(2, 1, 1, 1),
    'offsets': np.stack([np.array(points) - here] * 2)[:, :, :, None].astype(np.float32),
    'mask': np.full((2, 3, 4, 1), 0.5, np.float32),
  }
  function = compiled(FUNCTIONS[kind][0], path=path)
  value, _ = function(arguments, np.ones((2, 3, 4, 1), np.float32))
  np.testing.assert_allclose(value[..., 0], np.stack([1.5 * values, 0.5 * values]), rtol=1e-6)
  # Without the NaNs every gradient is finite, and an infinite offset has none.
  arguments['offsets'] = np.nan_to_num(arguments['offsets'], nan=inf, posinf=inf, neginf=-inf)
  _, grads = function(arguments, np.ones((2, 3, 4, 1), np.float32))
  assert all(bool(jnp.all(jnp.isfinite(grad))) for grad in grads.values())
  np.testing.assert_array_equal(grads['offsets'][:, 2], 0)
  on_the_pixel = np.array([1024 - 64, 128 - 64])
  np.testing.assert_allclose(
    grads['offsets'][:, 0, 0, 0], [1.5 * on_the_pixel, 0.5 * on_the_pixel], rtol=1e-6
  )


@both
@pytest.mark.parametrize('name', ['plain', later('same')])
def test_gradient_at_offsets_of_zero_is_one_sided(kind, name):
  case = CASES[name]
  function, slow = FUNCTIONS[kind]
  arguments, cotangent = draw(case, NAMES, depthwise=kind == 'depthwise')
  arguments['offsets'] *= 0
  grads = assert_equals_reference(
    function, slow, arguments, cotangent, one_sided=('offsets',), **case.options
  )
  # The central taps lie in the image, so nothing but chance could make them zero.
  assert np.all(np.asarray(grads['offsets'])[:, :, :, 4] != 0)


@both
@pytest.mark.slow  # the reference's differences say the same
def test_derivatives_in_reverse_mode(kind):
  arguments, _ = draw(Case(bhw=(1, 3, 4)), NAMES, depthwise=kind == 'depthwise')
  function = jax.jit(lambda *a: FUNCTIONS[kind][0](*a, padding=1))
  check_grads(function, tuple(arguments.values()), 1, ('rev',), 5e-3, 5e-3, 1e-2)


@depthwise_first
def test_images_do_not_mix(kind):
  case = CASES['plain']
  function = compiled(FUNCTIONS[kind][0], **case.options)
  arguments, cotangent = draw(case, NAMES, depthwise=kind == 'depthwise')
  value, grads = function(arguments, cotangent)
  d_kernel = 0
  for n in range(2):
    one = {name: array if name == 'kernel' else array[n : n + 1] for name, array in arguments.items()}
    value_n, grads_n = function(one, cotangent[n : n + 1])
    d_kernel += grads_n.pop('kernel')
    assert_close(value[n : n + 1], value_n)
    assert_close({name: grads[name][n : n + 1] for name in grads_n}, grads_n)
  assert_close(grads['kernel'], d_kernel)


@depthwise_first
def test_vmap_and_pmap(kind):
  case = CASES['strided']
  assert_transforms(FUNCTIONS[kind][0], *draw(case, NAMES, depthwise=kind == 'depthwise'), **case.options)


@both
@pytest.mark.parametrize(
  ('x', 'others'), [('bfloat16', 'bfloat16'), ('bfloat16', 'float32'), later('float32', 'bfloat16')]
)
def test_dtypes(kind, x, others):
  case = CASES['plain']
  arguments, cotangent = draw(case, NAMES, depthwise=kind == 'depthwise')
  # A handful of roundings to 8 bits, 2**-9 of the value each: products of the dense taps are in bfloat16.
  dtypes = dict.fromkeys(arguments, others) | {'x': x}
  assert_dtypes(FUNCTIONS[kind][0], arguments, cotangent, dtypes, 1e-2, **case.options)


@both
@pytest.mark.parametrize(('x', 'others'), [('float64', 'float32'), later('float32', 'float64')])
def test_gradients_keep_their_dtypes_beside_float64(kind, x, others):
  with jax.enable_x64(True):
    arguments, cotangent = draw(CASES['plain'], NAMES, depthwise=kind == 'depthwise')
    dtypes = dict.fromkeys(arguments, others) | {'x': x}
    function = compiled(FUNCTIONS[kind][0], **CASES['plain'].options)
    value, grads = jax.eval_shape(function, cast(arguments, dtypes), jnp.asarray(cotangent, x))
  assert value.dtype == x
  assert {name: str(grad.dtype) for name, grad in grads.items()} == dtypes


@both
def test_positions_stay_float32_under_bfloat16(kind):
  # At 57 pixels bfloat16 resolves a quarter of a pixel. Ramp, offset and answer are exact in it.
  ramp = np.arange(-56, 8).reshape(1, 1, 64, 1)
  offsets = np.broadcast_to([0, 0.375], (1, 1, 64, 1, 2))
  one = np.ones((1, 1, 1, 1))
  inputs = (array.astype(jnp.bfloat16) for array in (ramp, one, 0 * one, offsets))
  y = np.asarray(exactly_rounded(FUNCTIONS[kind][0])(*inputs), np.float32)
  np.testing.assert_array_equal(y[0, 0, 26:63, 0], np.arange(-30, 7) + 0.375)
