"""Contextual convolutions for accelerators, in any parts of a batch and of an image, equal those for CPUs."""

import functools

import jax
import jax.numpy as jnp
import pytest
from op_cases import assert_close
from random_arrays import normal

from ctx_flax.ops import (
  contextual_conv,
  contextual_depthwise_conv,
  contextual_gradients,
  contextual_sums,
  gpu_dense,
  gpu_depthwise,
)
from ctx_flax.ops.geometry import Window

B, H, W, C, D = 4, 6, 4, 5, 3
WINDOW = Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1))


@functools.cache
def inputs(kind):
  """x, kernel, delta, offsets and mask, some points outside of the image; and the cotangent of the sum."""
  kernel = normal(1, 9, C) if kind == 'depthwise' else normal(1, 9, C, D)
  offsets, mask = 3 * normal(3, B, H, W, 9, 2), jax.nn.sigmoid(normal(4, B, H, W, 9))
  saved = normal(0, B, H, W, C), kernel, normal(2, B, 9, C), offsets, mask
  return saved, normal(5, B, H, W, C if kind == 'depthwise' else D)


@functools.cache
def expected(kind):
  """The sum and its gradients, one tap after the other."""
  saved, dy = inputs(kind)
  total, gradients = (getattr(module, kind) for module in (contextual_sums, contextual_gradients))
  run = jax.jit(lambda saved, dy: (total(*saved, WINDOW), gradients(*saved, dy, WINDOW)))
  return run(saved, dy)


@pytest.mark.parametrize('taps', [1, 2, 9])
def test_any_taps_in_a_turn_give_the_same_sum(monkeypatch, taps):
  monkeypatch.setattr(gpu_depthwise, 'TAPS_IN_A_TURN', taps)
  run = jax.jit(lambda saved: gpu_depthwise.depthwise_sum(*saved, WINDOW))
  assert_close(run(inputs('depthwise')[0]), expected('depthwise')[0])


@pytest.mark.parametrize(
  ('images', 'length'),
  [(1, 24), (2, 8), (4, 4), *(pytest.param(n, s, marks=pytest.mark.slow) for n in (1, 2, 4) for s in (1, 3))],
)
def test_any_parts_give_the_same_depthwise_gradients(monkeypatch, images, length):
  """24, 8, 4, 3 and 1 of 24 positions in a strip."""
  monkeypatch.setattr(gpu_depthwise, 'CACHE_BYTES', images * H * W * C * 4)
  monkeypatch.setattr(gpu_depthwise, 'POSITIONS_PER_STRIP', length)
  monkeypatch.setattr(gpu_depthwise, 'POSITIONS_IN_A_TURN', 2)
  run = jax.jit(lambda saved, dy: gpu_depthwise.depthwise_gradients(*saved, dy, WINDOW))
  assert_close(run(*inputs('depthwise')), expected('depthwise')[1])


@pytest.mark.parametrize('images', [1, 2, 4])
def test_any_images_in_a_turn_give_the_same_dense_sum_and_gradients(monkeypatch, images):
  for name in ('SUM_BYTES', 'GRADIENTS_BYTES'):
    monkeypatch.setattr(gpu_dense, name, images * H * W * 9 * C * 4)
  run = jax.jit(
    lambda saved, dy: (
      gpu_dense.dense_sum(*saved, WINDOW),
      gpu_dense.dense_gradients(*saved, dy, WINDOW),
    )
  )
  assert_close(run(*inputs('dense')), expected('dense'))


def test_images_go_together_as_far_as_memory_is_meant_to_hold_them():
  x, mask = jnp.zeros((B, H, W, C)), jnp.zeros((B, H, W, 9))
  taps_of_an_image = H * W * 9 * C * 4
  for fitting, together in ((1, 1), (2, 2), (3, 2), (9, 4)):  # 3 would fit, but do not divide 4
    assert gpu_dense.images_in_a_turn(x, mask, fitting * taps_of_an_image) == together
  assert gpu_dense.images_in_a_turn(x, mask, 0) == 1
  assert gpu_dense.images_in_a_turn(x.astype(jnp.bfloat16), mask, 2 * taps_of_an_image) == 4


@pytest.mark.parametrize('batch', ['b', '4'], ids=['any', 'fixed'])
@pytest.mark.parametrize('kind', ['depthwise', 'dense'])
def test_forward_passes_are_exported_for_every_platform(kind, batch):
  operation = contextual_depthwise_conv if kind == 'depthwise' else contextual_conv
  x, kernel, delta, offsets, mask = inputs(kind)[0]
  kernel = kernel.reshape(3, 3, -1, kernel.shape[-1])
  (b,) = jax.export.symbolic_shape(batch)
  shapes = [
    jax.ShapeDtypeStruct(array.shape if array is kernel else (b, *array.shape[1:]), array.dtype)
    for array in (x, kernel, delta.reshape(B, 3, 3, C), offsets, mask)
  ]
  call = jax.jit(functools.partial(operation, padding=1))
  exported = jax.export.export(call, platforms=('cpu', 'cuda', 'rocm', 'tpu'))(*shapes)
  program = jax.export.deserialize(exported.serialize())
  arrays = x, kernel, delta.reshape(B, 3, 3, C), offsets, mask
  assert_close(program.call(*arrays), expected(kind)[0])
