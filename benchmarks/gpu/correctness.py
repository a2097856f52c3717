"""Every operation on the card against float32 on the CPU of the same process: values and all gradients."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.cases import Case, all_cases
from benchmarks.gpu.rows import Row
from benchmarks.gpu.sizes import Sizes

# Relative, of the Euclidean norm; in bfloat16 against float32 on the same rounded arguments.
BOUNDS = {'float32': 1e-5, 'bfloat16': 2e-2}


def rows(sizes: Sizes, *, forced: bool) -> list[Row]:
  """A row for each case, dtype and path, float32 first: what the card takes by default, or forced paths."""
  cases = all_cases(sizes)
  return [
    Row(f'correctness {name} {_label(case, path)}{dtype}', functools.partial(compare, case, path, dtype), 8)
    for dtype in BOUNDS
    for name, case in cases.items()
    if dtype in case.dtypes
    for path in case.paths
    if (path is not None) == forced
  ]


def _label(case: Case, path: str | None) -> str:
  return f'{path or "default"} ' if len(case.paths) > 1 else ''


def compare(case: Case, path: str | None, dtype: str) -> dict[str, Any]:
  """{'ok', 'bound', 'errors'}: of the value's leaves, then of each gradient.

  The CPU computes what it does by default, whatever the path on the card. Errors are relative; of exact cases
  they are the share of entries that differ.
  """
  first = jnp.asarray(case.arguments[0], dtype)
  cotangents = _cotangents(case)
  with jax.default_matmul_precision('highest'):
    exact = (np.asarray(first, np.float32), *case.arguments[1:])
    expected = _by_default(case)(*jax.device_put((exact, cotangents), jax.devices('cpu')[0]))
    low = (first, *case.arguments[1:])
    found = jax.jit(_with_gradients(case, path))(*jax.device_put((low, cotangents), jax.devices()[0]))
  difference = _share_of_different if case.exact else _relative_error
  errors = [
    difference(np.asarray(a, np.float64), np.asarray(e, np.float64))
    for a, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
  ]
  bound = 0.0 if case.exact else BOUNDS[dtype]
  return {
    'ok': all(error <= bound for error in errors),
    'bound': bound,
    'errors': [_short(e) for e in errors],
  }


def _with_gradients(case: Case, path: str | None) -> Callable[..., Any]:
  """(arguments, cotangents) -> (value, the gradients of the first arguments)."""

  def run(arguments: Any, cotangents: Any) -> Any:
    first, rest = arguments[: case.gradients], arguments[case.gradients :]
    value, pull_back = jax.vjp(lambda *first: case.by(path)(*first, *rest), *first)
    if not case.gradients:
      return value, ()
    return value, pull_back(jax.tree.map(lambda dy, y: dy.astype(y.dtype), cotangents, value))

  return run


@functools.cache
def _by_default(case: Case) -> Callable[..., Any]:
  """Compiled once for all paths and dtypes of a case."""
  return jax.jit(_with_gradients(case, None))


def _cotangents(case: Case) -> Any:
  """Of the value, in float32, of as many digits as bfloat16 has."""
  if not case.gradients:
    return ()
  rng = np.random.default_rng(16)
  draw = lambda leaf: np.asarray(rng.normal(size=leaf.shape).astype(jnp.bfloat16), np.float32)
  return jax.tree.map(draw, jax.eval_shape(case.by(None), *case.arguments))


def _relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
  return float(np.linalg.norm(actual - expected) / max(float(np.linalg.norm(expected)), 1e-12))


def _share_of_different(actual: np.ndarray, expected: np.ndarray) -> float:
  return float(np.mean(actual != expected))


def _short(error: float) -> float | str:
  """Two digits; a text where JSON has no number."""
  return float(f'{error:.1e}') if math.isfinite(error) else str(error)
