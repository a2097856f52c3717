"""Trees of arrays as a run saves them."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax


class Variables(flax.struct.PyTreeNode):
  params: dict
  batch_stats: dict


def trees(seed=0, width=4):
  """A tree with a struct, empty nodes, scalars and optax's tuples, all different by seed."""
  rng = np.random.default_rng(seed)
  params = {
    'conv': {'kernel': rng.normal(size=(3, width)).astype(np.float32), 'bias': np.zeros(width, np.float32)}
  }
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
  return {
    'variables': Variables(params, {}),
    'optimizer': {'step': jnp.asarray(seed, jnp.int32), 'opt_state': tx.init(params)},
  }


def assert_equal(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y), strict=True)
