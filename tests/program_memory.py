"""What a function needs beside its inputs and outputs, without running it."""

import math

import jax
from jax.extend.core import jaxprs_in_params

# The suite's fast compiler (conftest.py) needs somewhat more memory.
AS_USERS_COMPILE = {'xla_cpu_use_fusion_emitters': True} if jax.__version_info__ < (0, 11) else {}


def compiled_temp(function, inputs):
  """Bytes of temporary memory, by the compiler's own count; inputs may be abstract."""
  analysis = jax.jit(function).lower(*inputs).compile(AS_USERS_COMPILE).memory_analysis()
  assert analysis is not None
  return analysis.temp_size_in_bytes


def sizes(jaxpr):
  """The number of elements of every array in a program and in the loops and rules inside it."""
  for equation in jaxpr.eqns:
    yield from (math.prod(variable.aval.shape) for variable in equation.outvars)
    for inner in jaxprs_in_params(equation.params):
      yield from sizes(inner)
