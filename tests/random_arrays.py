"""Random numbers for layers."""

import jax
import numpy as np

KEY = jax.random.key(0)


def normal(seed, *shape):
  """Normal numbers of a shape, float32."""
  # Of NumPy: JAX compiles a program for every shape.
  return np.random.default_rng(seed).standard_normal(shape, np.float32)
