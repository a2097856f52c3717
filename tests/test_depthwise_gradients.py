"""The gradients for accelerators, in any parts of a batch and strips of positions, equal the others."""

import functools

import jax
import pytest
from op_cases import assert_close
from random_arrays import normal

from ctx_flax.ops import contextual_gradients, depthwise_gradients

B, H, W, C, K = 4, 6, 4, 5, 9


@functools.cache
def saved_and_cotangent():
  """What the rule saves, x, kernel, delta, points and mask, some points outside of the image; and dy."""
  points = 3 + 3 * normal(3, K, B, H, W, 2)
  mask = jax.nn.sigmoid(normal(4, K, B, H, W))
  return (normal(0, B, H, W, C), normal(1, K, C), normal(2, B, K, C), points, mask), normal(5, B, H, W, C)


@functools.cache
def expected():
  return jax.jit(functools.partial(gradients, 'one_step'))(*saved_and_cotangent())


def gradients(path, saved, dy):
  return contextual_gradients.depthwise(path, saved, dy, depthwise_gradients.depthwise)


@pytest.mark.parametrize('images', [1, 2, 4])
@pytest.mark.parametrize('length', [1, 4, 24])
def test_any_parts_give_the_same(monkeypatch, images, length):
  monkeypatch.setattr(depthwise_gradients, 'CACHE_BYTES', images * H * W * C * 4)
  monkeypatch.setattr(depthwise_gradients, 'POSITIONS_PER_STRIP', length)
  monkeypatch.setattr(depthwise_gradients, 'POSITIONS_IN_A_TURN', 2)
  program = jax.jit(lambda *arguments: gradients('one_step_gpu', *arguments))
  assert_close(program(*saved_and_cotangent()), expected())


def test_images_go_together_as_far_as_the_cache_holds_them(monkeypatch):
  sizes = []
  original = depthwise_gradients._sampling_gradients
  monkeypatch.setattr(
    depthwise_gradients,
    '_sampling_gradients',
    lambda kernel, x, *rest: sizes.append(x.shape[0]) or original(kernel, x, *rest),
  )
  monkeypatch.setattr(depthwise_gradients, 'CACHE_BYTES', 3 * H * W * C * 4)
  jax.eval_shape(lambda *arguments: gradients('one_step_gpu', *arguments), *saved_and_cotangent())
  assert sizes == [2]  # 3 would fit, but do not divide 4
