"""What the compiled operations need beside inputs and outputs: deterministic, and nothing is run.

Sizes are those of the stages of a ConvNeXt-T and of a ResNet50 at 224 x 224, batch 8. Axes as in
the operations: b images, u v output grid, k taps, c in, d out.
"""

import functools
import math

import jax
import jax.numpy as jnp
import pytest
from program_memory import compiled_temp, sizes

from ctx_flax.ops import contextual_conv, contextual_depthwise_conv, depthwise_conv

B, U, V = 8, 28, 28
FLOAT = 4  # bytes
FUNCTIONS = {'dense': contextual_conv, 'depthwise': contextual_depthwise_conv}


def arguments(kind, c, k, size=U):
  """Abstract float32 inputs of a k x k contextual convolution from c to c channels."""
  shapes = (
    (B, size, size, c),
    (k, k, 1 if kind == 'depthwise' else c, c),
    (B, k, k, c),
    (B, size, size, k * k, 2),
    (B, size, size, k * k),
  )
  return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)


def forward(kind, k, path=None):
  return functools.partial(FUNCTIONS[kind], padding=k // 2, path=path)


def with_gradients(function, count=5):
  """Value and gradients with respect to all inputs; the square makes the cotangent depend on the output."""
  return jax.value_and_grad(lambda *inputs: jnp.sum(jnp.square(function(*inputs))), tuple(range(count)))


@functools.cache
def temp_bytes(kind, c, k, backward, path=None, size=U):
  function = forward(kind, k, path)
  return compiled_temp(with_gradients(function) if backward else function, arguments(kind, c, k, size))


# The later stages of a ConvNeXt-T.
slow = pytest.mark.slow
LATER = (28, 192), pytest.param(14, 384, marks=slow), pytest.param(7, 768, marks=slow)
stages = pytest.mark.parametrize(('size', 'c'), LATER)


@stages
def test_depthwise_forward_needs_at_most_twice_its_output(size, c):
  assert temp_bytes('depthwise', c, 7, backward=False, size=size) <= 2 * B * size * size * c * FLOAT


@stages
def test_depthwise_gradients_need_at_most_a_sixth_of_all_taps(size, c):
  taps = B * size * size * 49 * c * FLOAT
  assert temp_bytes('depthwise', c, 7, backward=True, size=size) <= taps / 6


# The dense one works on a few arrays (b, u, v, c) at a time, with a 3 x 3 kernel not far below all nine taps:
# a kept tensor of all taps comes on top of them and breaks these bounds.
def test_dense_forward_keeps_no_tensor_of_all_taps():
  assert temp_bytes('dense', 128, 3, backward=False) < B * U * V * 9 * 128 * FLOAT


def test_dense_gradients_keep_no_tensor_of_all_taps():
  assert temp_bytes('dense', 128, 3, backward=True) < 1.5 * B * U * V * 9 * 128 * FLOAT


@pytest.mark.parametrize(
  ('kind', 'c', 'k'), [('dense', 128, 3), pytest.param('depthwise', 192, 7, marks=slow)]
)
def test_two_steps_exceed_these_bounds(kind, c, k):
  # That the measure sees what it should: materialised taps, forward as well as backward.
  taps = B * U * V * k * k * c * FLOAT
  assert temp_bytes(kind, c, k, backward=False, path='two_steps') > 0.9 * taps
  assert temp_bytes(kind, c, k, backward=True, path='two_steps') > 2 * taps


# Sizes that other tests have compiled. A bound for the depthwise one is far below all taps already.
@pytest.mark.parametrize(('kind', 'c'), [('dense', 128), pytest.param('depthwise', 192, marks=slow)])
def test_temp_memory_hardly_grows_with_the_kernel(kind, c):
  # From 9 to 49 taps only offsets, masks, kernels and their gradients grow, not the taps (b, u, v, k, c). The
  # dense one also has an image of one number per tap for the deltas, with its gradient, and with it once more
  # the gradients of offsets and mask: five arrays beside the three of offsets and mask.
  times = 2.5 + (5 / 3 if kind == 'dense' else 0)
  growth = temp_bytes(kind, c, 7, backward=True) - temp_bytes(kind, c, 3, backward=True)
  taps = B * U * V * (49 - 9) * c * FLOAT
  inputs = [sum(math.prod(a.shape) for a in arguments(kind, c, k)) * FLOAT for k in (3, 7)]
  assert growth < times * (inputs[1] - inputs[0]) < taps / 4


@pytest.mark.parametrize(('kind', 'c', 'k'), [('dense', 128, 3), ('depthwise', 192, 7)])
def test_no_intermediate_is_larger_than_the_image(kind, c, k):
  """In the program itself: neither all taps (b, u, v, k, c) nor, dense, a kernel per image (b, k, c, d).

  The program for accelerators names all taps and relies on their compiler never to keep them.
  """
  for path in ('one_step', 'one_step_cpu'):
    program = jax.make_jaxpr(with_gradients(forward(kind, k, path)))(*arguments(kind, c, k))
    assert max(sizes(program.jaxpr)) == B * U * V * c
  program = jax.make_jaxpr(with_gradients(forward(kind, k, 'two_steps')))(*arguments(kind, c, k))
  assert max(sizes(program.jaxpr)) >= B * U * V * k * k * c


@pytest.mark.parametrize(('size', 'c'), [pytest.param(56, 96, marks=slow), *LATER])
def test_plain_depthwise_gradients_need_at_most_twice_what_xlas_do(size, c):
  inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((B, size, size, c), (7, 7, 1, c))]
  ours, xlas = (
    compiled_temp(with_gradients(functools.partial(depthwise_conv, padding=3, path=path), 2), inputs)
    for path in ('shift', 'xla')
  )
  assert ours <= 2 * xlas


def test_no_product_of_the_plain_depthwise_gradients_is_kept():
  """In the program itself nothing is larger than the padded image: all products have 49 times its size."""
  inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((B, U, V, 4), (7, 7, 1, 4))]
  for path in ('shift', 'mixed'):
    program = jax.make_jaxpr(with_gradients(functools.partial(depthwise_conv, padding=3, path=path), 2))(
      *inputs
    )
    assert max(sizes(program.jaxpr)) == B * (U + 6) * (V + 6) * 4, path
