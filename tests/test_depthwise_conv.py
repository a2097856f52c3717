"""Plain depthwise convolution: every path against the reference, shared kernels and kernels per image."""

import functools

import jax
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
)

from ctx_flax.layers import ConvNeXtBlock
from ctx_flax.ops import depthwise_conv
from ctx_flax.ops.depthwise_conv import PATHS

PLAIN = CASES['plain']
every_path = pytest.mark.parametrize('path', [None, *PATHS])


def arguments_of(case, per_image=False):
  return draw(case, 'x kernel', depthwise=True, per_image=per_image)


@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize('name', CASES)
def test_equals_reference(name, path):
  case = CASES[name]
  assert_equals_reference(
    depthwise_conv, reference.depthwise_conv, *arguments_of(case), path=path, **case.options
  )


@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize('name', ['plain', 'rectangular', 'same', 'gaps'])
def test_kernels_per_image_equal_reference(name, path):
  case = CASES[name]
  assert_equals_reference(
    depthwise_conv, reference.depthwise_conv, *arguments_of(case, True), path=path, **case.options
  )


@every_path
def test_hand_values(path):
  x = np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4, 1)
  kernel = np.array([[1, 10], [100, 1000]], np.float32).reshape(2, 2, 1, 1)
  function = jax.jit(depthwise_conv, static_argnames=('strides', 'padding', 'path'))
  y = np.asarray(function(x, kernel, strides=2, padding=1, path=path))
  # The window starts above and left of the image: of the first output only the last tap counts.
  np.testing.assert_array_equal(y[0, :, :, 0], [[1000, 3200, 400], [9050, 12076, 1208]])


def test_kernels_per_image_are_a_loop_over_images():
  arguments, cotangent = arguments_of(PLAIN, per_image=True)
  function = compiled(depthwise_conv, **PLAIN.options)
  value, grads = function(arguments, cotangent)
  for n in range(2):
    one = {'x': arguments['x'][n : n + 1], 'kernel': arguments['kernel'][n]}
    value_n, grads_n = function(one, cotangent[n : n + 1])
    grads_n['kernel'] = grads_n['kernel'][None]
    assert_close(value[n : n + 1], value_n)
    assert_close({name: grad[n : n + 1] for name, grad in grads.items()}, grads_n)


@pytest.mark.parametrize('path', PATHS)
def test_derivatives_in_reverse_mode(path):
  arguments, _ = arguments_of(Case(bhw=(1, 3, 4)))
  function = jax.jit(lambda *a: depthwise_conv(*a, padding=1, path=path))
  check_grads(function, tuple(arguments.values()), 1, ('rev',), 5e-3, 5e-3, 1e-2)


# XLA's own operation needs no rule of ours.
@pytest.mark.parametrize(
  ('per_image', 'path'),
  [
    (False, None),
    (True, 'shift'),
    (False, 'mixed'),
    pytest.param(False, 'xla', marks=pytest.mark.slow),
    pytest.param(True, 'xla', marks=pytest.mark.slow),
  ],
)
def test_vmap_and_pmap(per_image, path):
  case = CASES['strided']
  assert_transforms(depthwise_conv, *arguments_of(case, per_image), path=path, **case.options)


@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize(
  ('x', 'kernel'), [('bfloat16', 'bfloat16'), ('bfloat16', 'float32'), ('float32', 'bfloat16')]
)
def test_dtypes(x, kernel, path):
  # The kernel is rounded to the dtype of x, and so is the result: 2**-9 of the value each.
  arguments, cotangent = arguments_of(PLAIN)
  dtypes = {'x': x, 'kernel': kernel}
  assert_dtypes(depthwise_conv, arguments, cotangent, dtypes, 1e-2, path=path, **PLAIN.options)


@pytest.mark.parametrize(
  ('name', 'wrong', 'message'),
  [
    ('x', (5, 6, 4), '(b, h, w, c)'),
    ('x', 'int32', 'a floating dtype'),
    ('kernel', (3, 3, 4, 1), '(kh, kw, 1, c) = (kh, kw, 1, 4)'),
    ('kernel', (3, 3, 4), '(kh, kw, 1, c) = (kh, kw, 1, 4)'),
    ('kernel', (3, 3, 3, 1, 4), '(b, kh, kw, 1, c) = (2, kh, kw, 1, 4)'),
    ('kernel', 'int32', 'a floating dtype'),
  ],
  ids=str,
)
def test_wrong_input_is_named(name, wrong, message):
  assert_refused(depthwise_conv, arguments_of(PLAIN)[0], name, wrong, message, **PLAIN.options)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'path': 'fast'}, r"path='fast': expected None or one of \('shift', 'xla', 'mixed'\)"),
    ({'strides': (1, 0)}, r'strides=\(1, 0\): expected an int or a pair of ints, each at least 1'),
    ({'dilation': 0}, 'dilation=0: expected an int or a pair of ints, each at least 1'),
    ({'padding': ((1, 1),)}, r"padding=\(\(1, 1\),\): expected 'SAME', 'VALID', an int"),
    ({'padding': 0, 'dilation': 3}, r'x has 5 x 6 pixels, too few for kernel size \(3, 3\)'),
  ],
  ids=str,
)
def test_wrong_options_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    depthwise_conv(**arguments_of(PLAIN)[0], **(PLAIN.options | options))


def test_the_taps_are_not_computed_again_for_every_use():
  """In a block of a ConvNeXt a LayerNorm uses the result three times."""
  block = ConvNeXtBlock()
  x = np.ones((2, 9, 9, 8), np.float32)
  variables = jax.eval_shape(block.init, jax.random.key(0), x)
  program = jax.jit(lambda variables, x: block.apply(variables, x)[0]).lower(variables, x).compile()
  assert 49 <= program.as_text().count(' multiply(') < 2 * 49


@pytest.mark.parametrize(
  ('platform', 'dtype', 'side', 'expected'),
  [
    ('cpu', 'float32', 8, 0),
    ('cuda', 'float32', 8, 2),
    ('cuda', 'bfloat16', 8, 3),
    ('cuda', 'bfloat16', 7, 2),
    ('cuda', 'float16', 7, 2),
    ('tpu', 'float32', 7, 3),
  ],
)
def test_the_path_of_a_platform(platform, dtype, side, expected):
  """Convolutions in the program for it, of value, gradient of the image and gradient of the kernel."""
  assert convolutions(platform, dtype, side) == expected
  assert convolutions(platform, dtype, side, per_image=True) == (0 if platform == 'cpu' else 3)


def convolutions(platform, dtype, side, per_image=False):
  x = jax.ShapeDtypeStruct((2, side, side, 4), dtype)
  kernel = jax.ShapeDtypeStruct((*(2,) * per_image, 7, 7, 1, 4), np.float32)
  function = jax.jit(jax.value_and_grad(lambda *inputs: depthwise_conv(*inputs, padding=3).sum(), (0, 1)))
  return function.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text().count('.convolution(')


@every_path
def test_one_image_is_kept_for_the_gradients(path):
  """Also where the program has branches for several platforms: each keeps the same."""
  x, kernel = (jax.ShapeDtypeStruct(shape, np.float32) for shape in ((2, 8, 8, 4), (3, 3, 1, 4)))
  kept = jax.eval_shape(
    lambda *inputs: jax.vjp(functools.partial(depthwise_conv, path=path), *inputs)[1], x, kernel
  )
  assert sum(leaf.size >= x.size for leaf in jax.tree.leaves(kept)) == 1
