"""Times of the operations by path at the shapes of the networks.

Axes: b images, h w grid, k taps, c channels.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.gpu.cases import normal
from benchmarks.gpu.rows import Row
from benchmarks.gpu.sizes import Shapes, Sizes
from benchmarks.gpu.timing import measure
from ctx_flax.ops import contextual_conv, contextual_depthwise_conv, depthwise_conv
from ctx_flax.ops.depthwise_conv import PATHS

Function = Callable[..., Any]
# By default a GPU takes 'one_step_gpu'.
CONTEXTUAL_PATHS = None, 'one_step', 'two_steps'
CONTEXTUAL: tuple[tuple[str, Function, int], ...] = (
  ('contextual_depthwise_conv', contextual_depthwise_conv, 7),
  ('contextual_conv', contextual_conv, 3),
)
# Seconds of a row, compilation included.
SECONDS = {'bfloat16': 7, 'float32': 8}
PLAIN_SECONDS = 9  # XLA tries several of cuDNN's kernels


def contextual(
  sizes: Sizes,
  b: int,
  dtype: str,
  paths: tuple[str | None, ...],
  directions: tuple[str, ...] = ('forward', 'gradients'),
  mark: str = '',
) -> list[Row]:
  """Rows of both contextual convolutions with b images; `mark` ends every name.

  'forward' is the value alone, 'gradients' the value and all gradients.
  """
  return [
    Row(
      f'{name} {k}x{k} {direction} {b}x{h}x{h}x{c} {dtype} {path or "default"}{mark}',
      functools.partial(_contextual, function, k, direction, (b, h, c), dtype, path),
      SECONDS[dtype],
    )
    for name, function, k in CONTEXTUAL
    for path in paths
    for h, c in _shapes(sizes, k)
    for direction in directions
  ]


def _shapes(sizes: Sizes, k: int) -> Shapes:
  return sizes.depthwise if k == 7 else sizes.dense


def _contextual(
  function: Function, k: int, direction: str, shape: tuple[int, int, int], dtype: str, path: str | None
) -> dict[str, Any]:
  run = functools.partial(function, padding=k // 2, path=path)
  inputs = arguments(function, k, shape, dtype)
  if direction == 'forward':
    return measure(run, *inputs)

  def with_gradients(dy: jax.Array, *inputs: jax.Array) -> Any:
    y, pull_back = jax.vjp(run, *inputs)
    return y, pull_back(dy)

  return measure(with_gradients, _images(shape, dtype, 5), *inputs)


def arguments(function: Function, k: int, shape: tuple[int, int, int], dtype: str) -> tuple[jax.Array, ...]:
  """Image, kernel, delta of the kernel, offsets and mask; as many channels out as in.

  The image and the delta are of the compute dtype, as in a network; offsets are 1.5 pixels long.
  """
  b, h, c = shape
  return (
    _images(shape, dtype, 0),
    jnp.asarray(normal(1, k, k, 1 if function is contextual_depthwise_conv else c, c, scale=0.1)),
    jnp.asarray(normal(2, b, k, k, c, scale=0.03), dtype),
    jnp.asarray(normal(3, b, h, h, k * k, 2, scale=1.5)),
    jax.nn.sigmoid(jnp.asarray(normal(4, b, h, h, k * k))),
  )


def plain(sizes: Sizes, b: int, dtype: str) -> list[Row]:
  """Rows of the plain depthwise convolution 7x7: each direction alone, by every path."""
  return [
    Row(
      f'depthwise_conv 7x7 {direction} {b}x{h}x{h}x{c} {dtype} {path}',
      functools.partial(_plain, direction, (b, h, c), dtype, path),
      PLAIN_SECONDS,
    )
    for h, c in sizes.plain
    for direction in PLAIN_DIRECTIONS
    for path in PATHS
  ]


def _plain(direction: str, shape: tuple[int, int, int], dtype: str, path: str) -> dict[str, Any]:
  run = functools.partial(depthwise_conv, padding=3, path=path)
  kernel = jnp.asarray(normal(1, 7, 7, 1, shape[-1], scale=0.1))
  x, dy = (_images(shape, dtype, seed) for seed in (0, 2))
  return measure(functools.partial(PLAIN_DIRECTIONS[direction], run), x, kernel, dy)


# What is computed of a plain convolution; dx, dk: the gradients of image and kernel. XLA drops all else.
PLAIN_DIRECTIONS: dict[str, Callable[..., Any]] = {
  'forward': lambda run, x, kernel, dy: run(x, kernel),
  'dx': lambda run, x, kernel, dy: jax.vjp(lambda x: run(x, kernel), x)[1](dy)[0],
  'dk': lambda run, x, kernel, dy: jax.vjp(lambda kernel: run(x, kernel), kernel)[1](dy)[0],
}


def _images(shape: tuple[int, int, int], dtype: str, seed: int) -> jax.Array:
  b, h, c = shape
  return jnp.asarray(normal(seed, b, h, h, c), dtype)
