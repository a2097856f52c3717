"""Contextual convolutions: wrong input is named, with what it must be."""

import pytest
from contextual_cases import FUNCTIONS, NAMES, both
from op_cases import (
  CASES,
  assert_refused,
  draw,
)

WRONG = [
  ('x', (5, 6, 4), '(b, h, w, c)'),
  ('x', 'int32', 'a floating dtype'),
  ('kernel', 'int32', 'a floating dtype'),
  ('kernel_delta', (3, 3, 4), '(b, kh, kw, c) = (2, 3, 3, 4)'),
  ('kernel_delta', (1, 3, 3, 4), '(b, kh, kw, c) = (2, 3, 3, 4)'),
  ('kernel_delta', (2, 4, 3, 3), '(b, kh, kw, c) = (2, 3, 3, 4)'),
  ('kernel_delta', 'int32', 'a floating dtype'),
  ('offsets', (2, 5, 6, 8, 2), '(b, u, v, k, 2) = (2, 5, 6, 9, 2)'),
  ('offsets', (2, 5, 6, 18), '(b, u, v, k, 2) = (2, 5, 6, 9, 2)'),
  ('offsets', (2, 5, 6, 2, 9, 2), '(b, u, v, k, 2) = (2, 5, 6, 9, 2)'),
  ('offsets', (2, 3, 4, 9, 2), '(b, u, v, k, 2) = (2, 5, 6, 9, 2)'),
  ('offsets', 'int32', 'a floating dtype'),
  ('mask', (2, 5, 6, 9, 1), '(b, u, v, k) = (2, 5, 6, 9)'),
  ('mask', (1, 5, 6, 9), '(b, u, v, k) = (2, 5, 6, 9)'),
  ('mask', 'bool', 'a floating dtype'),
]
WRONG_KERNELS = {
  'dense': [((3, 3, 5, 6), '(kh, kw, c, d) = (kh, kw, 4, d)'), ((2, 3, 3, 4, 6), '(kh, kw, c, d)')],
  'depthwise': [((3, 3, 4, 1), '(kh, kw, 1, c) = (kh, kw, 1, 4)'), ((3, 3, 4), '(kh, kw, 1, c)')],
}


@both
def test_wrong_input_is_named(kind):
  function, options = FUNCTIONS[kind][0], CASES['plain'].options
  arguments, _ = draw(CASES['plain'], NAMES, depthwise=kind == 'depthwise')
  for wrong in (*WRONG, *(('kernel', *row) for row in WRONG_KERNELS[kind])):
    assert_refused(function, arguments, *wrong, **options)


@both
@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'path': 'three_steps'}, r"path='three_steps': expected None or one of \('one_step', 'one_step_cpu'"),
    ({'strides': 0}, 'strides=0: expected an int or a pair of ints, each at least 1'),
    ({'dilation': (1, 1, 1)}, r'dilation=\(1, 1, 1\): expected'),
    ({'padding': 'HALF'}, "padding='HALF': expected 'SAME', 'VALID', an int"),
    ({'padding': 0, 'dilation': 3}, r'x has 5 x 6 pixels, too few for kernel size \(3, 3\)'),
  ],
  ids=str,
)
def test_wrong_options_are_named(kind, options, message):
  arguments, _ = draw(CASES['plain'], NAMES, depthwise=kind == 'depthwise')
  with pytest.raises(ValueError, match=message):
    FUNCTIONS[kind][0](**arguments, **(CASES['plain'].options | options))
