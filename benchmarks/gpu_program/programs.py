"""The programs that are compiled: operations at the networks' shapes, the class selection, whole networks."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import network_step
from ctx_flax.layers.best_classes import best_classes
from ctx_flax.ops import contextual_conv, contextual_depthwise_conv, depthwise_conv

F32, BF16 = jnp.float32, jnp.bfloat16
BATCH = 128
# (positions per side, channels) of stages 2 to 4 at 224 px.
DEPTHWISE = (28, 192), (14, 384), (7, 768)  # ConvNeXt-T, 7 x 7 taps
DENSE = (28, 128), (14, 256), (7, 512)  # ResNet50, 3 x 3 taps
PLAIN = (56, 96), *DEPTHWISE
NETWORKS = 'convnext_t', 'ctx_convnext_t', 'resnet50', 'ctx_resnet50'
MINI = 'convnext_mini', 'ctx_convnext_mini'


@dataclasses.dataclass(frozen=True)
class Program:
  """A function and what it is compiled for.

  Attributes:
    name: of the row.
    make: -> (function, its arguments as shapes).
    held: whether its numbers are compared with the recorded ones whenever the package is checked.
  """

  name: str
  make: Callable[[], tuple[Any, ...]]
  held: bool = False


def programs() -> list[Program]:
  """All of them, the quickest first."""
  rows = [Program(f'selection of classes, {BATCH} x 1000', selection, held=True)]
  for operation, sizes, k in ((contextual_conv, DENSE, 3), (contextual_depthwise_conv, DEPTHWISE, 7)):
    for size, c in sizes:
      kind = 'depthwise 7x7' if k == 7 else 'dense 3x3'
      for gradients in (False, True):
        make = functools.partial(contextual, operation, size, c, k, gradients)
        direction = 'with gradients' if gradients else 'forward'
        rows.append(Program(f'contextual {kind} {size}x{size}x{c}, {direction}', make, held=size == 28))
  for size, c in PLAIN:
    for path in (None, 'xla', 'shift'):
      name = f'plain depthwise 7x7 {size}x{size}x{c}, with gradients, {path or "by default"}'
      rows.append(Program(name, functools.partial(plain_depthwise, size, c, path)))
  for name in MINI:
    make = functools.partial(training_step, name, 8, 64)
    rows.append(Program(f'training step {name}, 8 images of 64 px', make, held=name.startswith('ctx')))
  for name in NETWORKS:
    make = functools.partial(inference, name, BATCH, 224)
    rows.append(Program(f'inference {name}, {BATCH} images of 224 px', make))
  for name in NETWORKS:
    make = functools.partial(training_step, name, BATCH, 224)
    rows.append(Program(f'training step {name}, {BATCH} images of 224 px', make))
  return rows


def selection() -> tuple[Any, ...]:
  return best_classes, _array((BATCH, 1000), F32), _array((), jnp.int32)


def contextual(operation: Any, size: int, c: int, k: int, gradients: bool) -> tuple[Any, ...]:
  """An operation as a bfloat16 network calls it: offsets and mask in bfloat16 too."""
  shape = BATCH, size, size, c
  kernel = k, k, 1 if operation is contextual_depthwise_conv else c, c
  arguments = (
    _array(shape),
    _array(kernel),
    _array((BATCH, k, k, c)),
    _array((BATCH, size, size, k * k, 2)),
    _array((BATCH, size, size, k * k)),
  )
  call = functools.partial(operation, padding=k // 2)
  return (_with_gradients(call), *arguments, _array(shape)) if gradients else (call, *arguments)


def plain_depthwise(size: int, c: int, path: str | None) -> tuple[Any, ...]:
  call = functools.partial(depthwise_conv, padding=3, path=path)
  shape = BATCH, size, size, c
  return _with_gradients(call), _array(shape), _array((7, 7, 1, c)), _array(shape)


def inference(name: str, batch: int, size: int) -> tuple[Any, ...]:
  model = network_step.network(name, 'bfloat16')
  state = jax.eval_shape(functools.partial(network_step.initial_state, model, size))
  images = _array((batch, size, size, 3), F32)
  return functools.partial(network_step.infer, model), state['variables'], images


def training_step(name: str, batch: int, size: int) -> tuple[Any, ...]:
  model = network_step.network(name, 'bfloat16')
  state = jax.eval_shape(functools.partial(network_step.initial_state, model, size))
  images, labels = _array((batch, size, size, 3), F32), _array((batch,), jnp.int32)
  return functools.partial(network_step.train_step, model), state, images, labels


def _with_gradients(function: Any) -> Any:
  """The function's value and the gradients of all arguments, for a cotangent that comes last."""

  def run(*arguments: jax.Array) -> Any:
    value, back = jax.vjp(function, *arguments[:-1])
    return value, back(arguments[-1])

  return run


def _array(shape: tuple[int, ...], dtype: Any = BF16) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, dtype)
