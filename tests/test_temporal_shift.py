"""The temporal shift: exactly TSM's, in value and in gradient."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from ctx_flax.ops import temporal_shift


def both_ways(x, cotangent, fold_div):
  """The shifted clips, and the gradient of what is shifted."""
  y, transpose = jax.vjp(lambda x: temporal_shift(x, fold_div=fold_div), x)
  return y, transpose(cotangent)[0]


CASES = [(1, 1, 8, 8), (2, 2, 8, 8), (2, 5, 20, 8), (1, 8, 9, 4), (2, 3, 7, 8), (1, 4, 9, 3), (1, 3, 5, 2)]


@pytest.mark.parametrize('b, t, c, fold_div', CASES)
def test_equals_reference(b, t, c, fold_div):
  rng = np.random.default_rng(t * c)
  x, cotangent = rng.normal(size=(2, b, t, 2, 3, c)).astype(np.float32)
  y, gradient = jax.jit(both_ways, static_argnums=2)(x, cotangent, fold_div)
  np.testing.assert_array_equal(y, reference.temporal_shift(x, fold_div), strict=True)
  # A number goes to one place or to none, and the gradient comes back from there: backwards in time.
  turned = reference.temporal_shift(cotangent[:, ::-1], fold_div)[:, ::-1]
  np.testing.assert_array_equal(gradient, turned)


def test_the_released_code(golden):
  arrays = golden('video/shift')
  cases = sorted({name.rpartition('/')[0] for name in arrays})
  assert len(cases) == 12
  fold_div = {case: int(re.search(r'div(\d+)', case)[1]) for case in cases}

  @jax.jit
  def run(arrays):
    return {case: both_ways(arrays[f'{case}/x'], arrays[f'{case}/ct'], fold_div[case]) for case in cases}

  for case, (shifted, gradient) in run(arrays).items():
    np.testing.assert_array_equal(shifted, arrays[f'{case}/y'], err_msg=case)
    np.testing.assert_array_equal(gradient, arrays[f'{case}/dx'], err_msg=case)


def test_one_frame_alone_loses_what_would_have_moved():
  y = np.asarray(jax.jit(temporal_shift)(np.ones((1, 1, 2, 2, 16), jnp.bfloat16)))
  assert y.dtype == jnp.bfloat16 and y[0, 0, 0, 0].tolist() == [0] * 4 + [1] * 12


def test_clips_do_not_mix():
  clips = np.random.default_rng(0).normal(size=(3, 4, 1, 1, 8)).astype(np.float32)
  shift = jax.jit(temporal_shift)
  alone = np.concatenate([shift(clip[None]) for clip in clips])
  np.testing.assert_array_equal(shift(clips), alone)


def test_wrong_input_is_named():
  with pytest.raises(ValueError, match=r'x has shape \(8, 4, 4, 16\); expected \(b, t, h, w, c\)'):
    temporal_shift(jnp.zeros((8, 4, 4, 16)))
  with pytest.raises(ValueError, match='fold_div=1: expected at least 2'):
    temporal_shift(jnp.zeros((1, 2, 4, 4, 16)), fold_div=1)
