"""The temporal shift: exactly TSM's, in value and in gradient."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from ctx_flax.ops import temporal_shift

CASES = [(1, 1, 8, 8), (2, 2, 8, 8), (2, 5, 20, 8), (1, 8, 9, 4), (2, 3, 7, 8), (1, 4, 9, 3), (1, 3, 5, 2)]


@pytest.mark.parametrize('b, t, c, fold_div', CASES)
def test_equals_reference(b, t, c, fold_div):
  rng = np.random.default_rng(t * c)
  x, cotangent = rng.normal(size=(2, b, t, 2, 3, c)).astype(np.float32)
  y, transpose = jax.vjp(lambda x: temporal_shift(x, fold_div=fold_div), jnp.asarray(x))
  np.testing.assert_array_equal(y, reference.temporal_shift(x, fold_div), strict=True)
  # A number goes to one place or to none, and the gradient comes back from there: backwards in time.
  turned = reference.temporal_shift(cotangent[:, ::-1], fold_div)[:, ::-1]
  np.testing.assert_array_equal(transpose(jnp.asarray(cotangent))[0], turned)


def test_the_released_code(golden):
  arrays = golden('video/shift')
  cases = sorted({name.rpartition('/')[0] for name in arrays})
  assert len(cases) == 12
  for case in cases:
    x, y, cotangent, dx = (arrays[f'{case}/{name}'] for name in ('x', 'y', 'ct', 'dx'))
    fold_div = int(re.search(r'div(\d+)', case)[1])
    shifted, transpose = jax.vjp(lambda x, d=fold_div: temporal_shift(x, fold_div=d), jnp.asarray(x))
    np.testing.assert_array_equal(shifted, y, err_msg=case)
    np.testing.assert_array_equal(transpose(jnp.asarray(cotangent))[0], dx, err_msg=case)


def test_one_frame_alone_loses_what_would_have_moved():
  x = jnp.ones((1, 1, 2, 2, 16), jnp.bfloat16)
  y = temporal_shift(x)
  assert y.dtype == jnp.bfloat16 and y[0, 0, 0, 0].tolist() == [0] * 4 + [1] * 12


def test_clips_do_not_mix():
  clips = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 1, 1, 8)), jnp.float32)
  alone = jnp.concatenate([temporal_shift(clip[None]) for clip in clips])
  np.testing.assert_array_equal(temporal_shift(clips), alone)


def test_wrong_input_is_named():
  with pytest.raises(ValueError, match=r'x has shape \(8, 4, 4, 16\); expected \(b, t, h, w, c\)'):
    temporal_shift(jnp.zeros((8, 4, 4, 16)))
  with pytest.raises(ValueError, match='fold_div=1: expected at least 2'):
    temporal_shift(jnp.zeros((1, 2, 4, 4, 16)), fold_div=1)
