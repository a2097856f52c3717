"""Random numbers for layers."""

import jax

KEY = jax.random.key(0)


def normal(seed, *shape):
  """Normal numbers of a shape, float32."""
  return jax.random.normal(jax.random.key(seed), shape)
