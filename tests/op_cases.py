"""One table of shapes that feeds the property tests of every operation, and the checks that they share."""

import dataclasses
import functools
import zlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference


@dataclasses.dataclass(frozen=True)
class Case:
  """Sizes and options of one call, named as in the operations' legend."""

  bhw: tuple = (2, 5, 6)
  c: int = 4
  d: int = 6
  kernel: tuple = (3, 3)
  strides: int | tuple = 1
  padding: int | str | tuple = 1
  dilation: int | tuple = 1

  @property
  def options(self):
    return {'strides': self.strides, 'padding': self.padding, 'dilation': self.dilation}


CASES = {
  'plain': Case(),
  'strided': Case(bhw=(2, 6, 5), strides=2),
  'rectangular': Case(bhw=(1, 4, 7), kernel=(3, 2), strides=(1, 2), padding=(1, 0), dilation=(1, 2)),
  'pairs': Case(bhw=(2, 4, 5), padding=((2, 1), (0, 0))),
  'same': Case(bhw=(2, 6, 5), strides=2, padding='SAME'),  # one row after the image, none before it
  'valid': Case(bhw=(2, 4, 5), padding='VALID'),
  'dilated': Case(bhw=(2, 5, 4), padding=2, dilation=2),
  'gaps': Case(bhw=(1, 7, 6), kernel=(2, 2), strides=3, padding=0),  # pixels that no tap sees at offset zero
  'kernel1': Case(bhw=(2, 4, 3), kernel=(1, 1), padding=0),
  'wide': Case(bhw=(1, 3, 4), kernel=(1, 1), padding=2, strides=2),  # outputs that see no pixel at all
  'kernel5': Case(bhw=(1, 5, 4), kernel=(5, 5), padding=2, strides=2),
  'kernel7': Case(bhw=(1, 4, 5), c=3, kernel=(7, 7), padding=3, strides=2),
}


def draw(case, names, *, depthwise=False, per_image=False, groups=1, offset_groups=()):
  """The arguments called `names` and a cotangent of the output, random float32 arrays.

  The fractional part of an offset stays in [0.25, 0.75]: away from the kinks, where differences tell nothing.
  """
  b, h, w = case.bhw
  kh, kw = case.kernel
  d = case.c if depthwise else case.d
  u, v = (axis[1] for axis in reference.grid(np.zeros((b, h, w, 1)), case.kernel, **case.options))
  points = (b, u, v, *offset_groups, kh * kw)
  images = (b,) if per_image else ()
  random = np.random.default_rng(zlib.crc32(repr((case, depthwise, groups, offset_groups)).encode()))
  arrays = {
    'x': random.normal(size=(b, h, w, case.c)),
    'kernel_delta': random.normal(size=(b, kh, kw, case.c)),
    'offsets': random.integers(-2, 2, size=(*points, 2)) + random.uniform(0.25, 0.75, size=(*points, 2)),
    'mask': random.uniform(0.2, 1.0, size=points),
    'bias': random.normal(size=d),
    'cotangent': random.normal(size=(b, u, v, d)),
    'kernel': random.normal(size=(*images, kh, kw, 1 if depthwise else case.c // groups, d)),
  }
  arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
  return {name: arrays[name] for name in names.split()}, arrays['cotangent']


@functools.cache
def compiled(function, **options):
  """(arguments, cotangent) -> value and gradients of all arguments, under strict dtype promotion.

  Kept, so that tests that need the same shapes compile once.
  """

  @jax.jit
  def value_and_grads(arguments, cotangent):
    with jax.numpy_dtype_promotion('strict'):
      value, pull_back = jax.vjp(lambda named: function(**named, **options), arguments)
      return value, pull_back(cotangent)[0]

  return value_and_grads


def exactly_rounded(function):
  """Compiled so that every bfloat16 result is rounded: by default XLA may keep float32 between operations."""
  return jax.jit(function, compiler_options={'xla_allow_excess_precision': False})


def cast(arguments, dtypes):
  """Arguments in the dtypes given by name, or all in one."""
  if not isinstance(dtypes, dict):
    dtypes = dict.fromkeys(arguments, dtypes)
  return {name: jnp.asarray(array).astype(dtypes[name]) for name, array in arguments.items()}


def assert_close(actual, expected, tolerance=1e-5):
  """The same tree, each leaf within `tolerance` of its largest absolute value expected (of one, if less)."""
  actual, expected = (jax.tree.map(lambda a: np.asarray(a, np.float64), tree) for tree in (actual, expected))
  scales = jax.tree.map(lambda e: max(1.0, float(np.max(np.abs(e), initial=0.0))), expected)
  scaled = [jax.tree.map(lambda a, s: a / s, tree, scales) for tree in (actual, expected)]
  chex.assert_trees_all_close(*scaled, rtol=0, atol=tolerance)


def assert_equals_reference(function, slow, arguments, cotangent, *, one_sided=(), **options):
  """Value and gradient of every argument against the slow function and its differences.

  An argument named in `one_sided` lies on a kink: only positive directions are taken. Returns the gradients.
  """
  value, grads = compiled(function, **options)(arguments, cotangent)
  exact = {name: np.asarray(array, np.float64) for name, array in arguments.items()}
  # `path` chooses the code, never the numbers.
  slow = functools.partial(slow, **{name: option for name, option in options.items() if name != 'path'})
  assert_close(value, slow(**exact))
  random = np.random.default_rng(0)
  for name, grad in grads.items():
    grad = np.asarray(grad, np.float64)
    for _ in range(2):
      # Half of the entries move, so that errors of two halves do not cancel twice.
      direction = random.normal(size=grad.shape) * random.integers(0, 2, size=grad.shape)
      how = {}
      if name in one_sided:
        direction, how = abs(direction), {'step': 1e-6, 'one_sided': True}
      expected = reference.slope(slow, exact, name, direction, cotangent, **how)
      actual = float(np.sum(direction * grad))
      bound = 1e-5 * (1 + float(np.sum(abs(direction * grad))))
      assert abs(actual - expected) <= bound, f'gradient of {name}: {actual}, by differences {expected}'
  return grads


def assert_transforms(function, arguments, cotangent, **options):
  """vmap over one more axis and pmap over the eight devices equal a loop, in value and gradients."""
  single = compiled(function, **options)
  # Eight different copies; rolling keeps offsets away from the kinks.
  stacked = {name: np.stack([np.roll(array, n) for n in range(8)]) for name, array in arguments.items()}
  cotangents = np.stack([np.roll(cotangent, n) for n in range(8)])
  looped = [single({name: array[n] for name, array in stacked.items()}, cotangents[n]) for n in range(8)]
  expected = jax.tree.map(lambda *leaves: np.stack(leaves), *looped)
  assert_close(jax.jit(jax.vmap(single))(stacked, cotangents), expected)
  assert_close(jax.pmap(single, 'batch')(stacked, cotangents), expected)


def assert_dtypes(function, arguments, cotangent, dtypes, tolerance, **options):
  """Output in the dtype of x, gradients in their arguments', numbers near those of float32."""
  low = cast(arguments, dtypes)
  first = next(iter(low.values()))
  value, grads = compiled(function, **options)(low, jnp.asarray(cotangent).astype(first.dtype))
  assert value.dtype == first.dtype
  assert {n: g.dtype for n, g in grads.items()} == {n: a.dtype for n, a in low.items()}
  # The same rounded inputs in float32, so that only the operation's own rounding is compared.
  rounded = jnp.asarray(cotangent).astype(first.dtype).astype(jnp.float32)
  expected = compiled(function, **options)(cast(low, jnp.float32), rounded)
  assert_close((value, grads), expected, tolerance)


def assert_refused(function, arguments, name, wrong, message, **options):
  """A shape (tuple), dtype (str) or other value of one argument raises ValueError that tells all."""
  if isinstance(wrong, tuple):
    message = f'{name} has shape {wrong}; expected {message}'
    wrong = np.zeros(wrong, np.float32)
  elif isinstance(wrong, str):
    message = f'{name} has dtype {wrong}; expected {message}'
    wrong = arguments[name].astype(wrong)
  with pytest.raises(ValueError) as error:
    function(**{**arguments, name: wrong}, **options)
  assert message in str(error.value)
