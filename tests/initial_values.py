"""Initial values of a network, drawn by NumPy: compiling the network's own initialisation takes seconds."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

ONES, ZEROS = ('scale', 'var'), ('bias', 'mean', 'draws', 'zero')


def initial_values(model, shape=(32, 32, 3), seed=0, **keywords):
  """Variables for images of `shape`, as numpy arrays: norms start as identities, kernels are LeCun normal."""
  return drawn(model, _shapes(model, tuple(shape), **keywords), seed)


@functools.cache
def _shapes(model, shape, **keywords):
  images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  return jax.eval_shape(lambda key, x: model.init(key, x, train=False, **keywords), jax.random.key(0), images)


def drawn(model, shapes, seed=0):
  """Values for variables of these shapes and dtypes."""
  rng = np.random.default_rng(seed)

  def value(path, leaf):
    name = path[-1].key
    if name in ONES or name in ZEROS:
      array = np.full(leaf.shape, float(name in ONES))
    elif name == 'gamma':
      array = np.full(leaf.shape, getattr(model, 'backbone', model).layer_scale_init)
    elif name == 'logit_scale':
      array = np.full(leaf.shape, math.log(getattr(model, 'logit_scale_init', 1 / 0.07)))
    else:
      array = rng.normal(size=leaf.shape) / math.sqrt(math.prod(leaf.shape[:-1]) or 1)
    return array.astype(leaf.dtype)

  return jax.tree_util.tree_map_with_path(value, shapes)


def moved(tree, scale, seed=1):
  """The tree with normal noise of a standard deviation of `scale` on every value."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: (np.asarray(x) + scale * rng.normal(size=x.shape)).astype(x.dtype), tree)
