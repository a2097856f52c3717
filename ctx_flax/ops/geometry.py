"""Where a convolution looks: paddings, output sizes, the sampling points of every tap, and shape checks.

Axes: b images, h w input grid, u v output grid, k taps (row-major), g offset groups, c in, d out.
"""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Pair = tuple[int, int]  # (rows, columns)
Pads = tuple[Pair, Pair]  # ((top, bottom), (left, right))
Padding = int | str | Pair | Pads
Integers = jax.Array | np.ndarray


class Window(NamedTuple):
  """Where the taps of a convolution lie: position p, tap k is at p * strides - pads + k * dilation."""

  kernel_size: Pair
  strides: Pair
  pads: Pads
  dilation: Pair


def is_integer(value: Any) -> bool:
  """Whether a value is an integer of Python's or NumPy's."""
  try:
    operator.index(value)
  except TypeError:
    return False
  return True


def pair(value: int | Sequence[int], name: str, minimum: int = 1) -> Pair:
  """An int or a pair of ints as (rows, columns); ValueError naming the argument otherwise."""
  both = tuple(value) if isinstance(value, tuple | list) else (value, value)
  if len(both) != 2 or not all(is_integer(v) and operator.index(v) >= minimum for v in both):
    raise ValueError(f'{name}={value!r}: expected an int or a pair of ints, each at least {minimum}')
  return operator.index(both[0]), operator.index(both[1])


def resolve_padding(
  padding: Padding, size: Sequence[int], kernel_size: Pair, strides: Pair, dilation: Pair
) -> Pads:
  """Padding as ((top, bottom), (left, right)) in pixels.

  An int pads all four sides, a pair of ints pads (rows, columns) symmetrically, a pair of pairs is
  taken as it is. 'VALID' is none. 'SAME' is XLA's: output ceil(size / stride), the odd pixel at the
  end; at stride 2 it is not the kernel_size // 2 that PyTorch models use.
  """
  if isinstance(padding, str):
    if padding.upper() == 'VALID':
      return (0, 0), (0, 0)
    if padding.upper() == 'SAME':
      rows, columns = (
        max((-(-n // stride) - 1) * stride + (k - 1) * rate + 1 - n, 0)
        for n, k, stride, rate in zip(size, kernel_size, strides, dilation, strict=True)
      )
      return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)
  else:
    try:
      above, beside = padding if isinstance(padding, tuple | list) else (padding, padding)
      return pair(above, 'padding', 0), pair(beside, 'padding', 0)
    except (TypeError, ValueError):
      pass
  raise ValueError(
    f"padding={padding!r}: expected 'SAME', 'VALID', an int, (rows, columns) or "
    '((top, bottom), (left, right)), none negative'
  )


def output_size(size: Sequence[int], kernel_size: Pair, strides: Pair, pads: Pads, dilation: Pair) -> Pair:
  """(u, v) of the output grid; ValueError when the kernel does not fit into the padded image."""
  u, v = (
    (n + lo + hi - (k - 1) * rate - 1) // stride + 1
    for n, k, stride, (lo, hi), rate in zip(size, kernel_size, strides, pads, dilation, strict=True)
  )
  if min(u, v) < 1:
    raise ValueError(
      f'x has {size[0]} x {size[1]} pixels, too few for kernel size {kernel_size} with padding {pads} '
      f'and dilation {dilation}: the output would be {u} x {v}'
    )
  return u, v


def sampling_points(
  offsets: jax.Array, kernel_size: Pair, strides: Pair, pads: Pads, dilation: Pair
) -> jax.Array:
  """Absolute positions (dy, dx last) that every tap samples: p * stride - pad + tap * dilation + offset.

  Args:
    offsets: (b, u, v, ..., k, 2) in input pixels, not scaled by stride or dilation.

  Returns:
    Points of the same shape, at least float32: bfloat16 has 8 bits, which at 56 pixels is 0.13 pixels.
  """
  u, v = offsets.shape[1:3]
  window = Window(kernel_size, strides, pads, dilation)
  dtype = at_least_float32(offsets.dtype)
  rows, columns = jnp.arange(u).reshape(-1, 1, 1), jnp.arange(v).reshape(1, -1, 1)
  taps = jnp.arange(kernel_size[0] * kernel_size[1]).reshape(1, 1, -1)
  y, x = jnp.broadcast_arrays(*tap_positions(rows, columns, taps, window))
  base = jnp.stack([y, x], -1)
  between = offsets.ndim - 5  # axes between the grid and the taps: none, or the offset groups
  return offsets.astype(dtype) + base.astype(dtype).reshape(1, u, v, *(1,) * between, -1, 2)


def tap_positions(rows: Integers, columns: Integers, taps: Integers, window: Window) -> tuple[Any, Any]:
  """Where taps lie without offsets: y and x in input pixels, integers.

  Args:
    rows, columns: integers of the output grid, of JAX or of NumPy.
    taps: numbers of taps, row-major; all three are of one rank.
  """
  (_, columns_of_kernel), strides, pads, dilation = window
  y = rows * strides[0] - pads[0][0] + taps // columns_of_kernel * dilation[0]
  x = columns * strides[1] - pads[1][0] + taps % columns_of_kernel * dilation[1]
  return y, x


def at_least_float32(dtype: Any) -> jnp.dtype:
  """float64 for float64, else float32; jnp.promote_types refuses under strict dtype promotion."""
  return jnp.dtype('float64' if jnp.finfo(dtype).bits == 64 else 'float32')


def accumulation(x: jax.Array) -> jnp.dtype:
  """The dtype that sums over taps and channels are kept in: float32, or float64 if x has it."""
  return at_least_float32(x.dtype)


def check_shape(name: str, array: Any, axes: str, expected: tuple[int | None, ...]) -> None:
  """ValueError unless `array` has the expected shape (None matches any size) and a floating dtype."""
  shape = jnp.shape(array)
  if len(shape) != len(expected) or any(
    e is not None and s != e for s, e in zip(shape, expected, strict=True)
  ):
    wanted = ', '.join(
      letter if e is None else str(e) for letter, e in zip(axes.split(), expected, strict=True)
    )
    raise ValueError(f'{name} has shape {shape}; expected ({axes.replace(" ", ", ")}) = ({wanted})')
  if not jnp.issubdtype(jnp.result_type(array), jnp.floating):
    raise ValueError(f'{name} has dtype {jnp.result_type(array)}; expected a floating dtype')


def window_of(
  x: jax.Array, kernel_size: Pair, strides: int | Pair, padding: Padding, dilation: int | Pair
) -> Window:
  """The window of a convolution of x (b, h, w, c)."""
  steps, rates = pair(strides, 'strides'), pair(dilation, 'dilation')
  return Window(kernel_size, steps, resolve_padding(padding, x.shape[1:3], kernel_size, steps, rates), rates)


def check_sampling(x: jax.Array, offsets: jax.Array, mask: jax.Array | None, window: Window) -> None:
  """ValueError unless offsets are (b, u, v, k, 2) and mask, if there is one, (b, u, v, k)."""
  u, v = output_size(x.shape[1:3], *window)
  k = window.kernel_size[0] * window.kernel_size[1]
  check_shape('offsets', offsets, 'b u v k 2', (x.shape[0], u, v, k, 2))
  if mask is not None:
    check_shape('mask', mask, 'b u v k', (x.shape[0], u, v, k))
