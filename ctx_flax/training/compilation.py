"""Compiling programs that run once, so that it takes longer to compile than to run them."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax

LEVEL = 'xla_backend_optimization_level'
# Half the time to compile initial values, and the same bits, which 0 would change. What XLA_FLAGS says holds.
OPTIONS: dict[str, bool | int | str] = {} if LEVEL in os.environ.get('XLA_FLAGS', '') else {LEVEL: 1}


def jit_to_run_once(*static_argnames: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """jax.jit with fewer optimisations. The function is traced once for each set of static arguments."""

  def decorate(function):
    traced = jax.jit(function, static_argnames=static_argnames)
    whole = jax.jit(
      functools.wraps(function)(lambda *args, **static: traced(*args, **static)),
      static_argnames=static_argnames,
      compiler_options=OPTIONS,
    )

    def run(*args, **static):
      # Options are of whole programs: within another one, or where only shapes are asked for, it has none.
      inside = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args))
      return (traced if inside else whole)(*args, **static)

    return functools.wraps(function)(run)

  return decorate
