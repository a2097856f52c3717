"""What the tests of RoIAlign share: its two paths, arrays, and values with gradients."""

import functools

import jax
import numpy as np
import pytest

PATHS = 'windows', 'separable'
paths = pytest.mark.parametrize('path', PATHS)


def draw(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.cache
def compiled(function, **options):
  """(maps, boxes, cotangent) -> value and gradients of both, under strict dtype promotion."""

  @jax.jit
  def value_and_gradients(maps, boxes, cotangent):
    with jax.numpy_dtype_promotion('strict'):
      value, pull_back = jax.vjp(lambda maps, boxes: function(maps, boxes, **options), maps, boxes)
      return value, *pull_back(cotangent)

  return value_and_gradients
