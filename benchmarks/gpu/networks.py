"""Times and memory of whole networks, inference and a training step."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import network_step
from benchmarks.gpu.cases import normal
from benchmarks.gpu.rows import Row
from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.timing import measure, measure_steps

# Seconds of a row at most, nearly all of them XLA's compiler's; of contextual networks, and of plain ones.
SECONDS = {'inference': (75, 50), 'training': (125, 70)}
# What norms and layer scales multiply with.
ONES = 'scale', 'var', 'gamma'


def rows(
  sizes: Sizes,
  b: int,
  dtype: str,
  kinds: tuple[str, ...] = ('inference', 'training'),
  only: str = '',
  mark: str = '',
) -> list[Row]:
  """A row for each network and kind with b images; of one network `only`; `mark` ends every name."""
  return [
    Row(
      f'network {name} {kind} {b} {dtype}{mark}',
      functools.partial(_measure, sizes, model, kind, b, dtype),
      SECONDS[kind]['ctx_' not in name],
    )
    for name, model in sizes.networks.items()
    if only in ('', name)
    for kind in kinds
  ]


def _measure(sizes: Sizes, name: str, kind: str, b: int, dtype: str) -> dict[str, Any]:
  model, state = network_step.network(name, dtype), initial_state(name, sizes.image_size)
  side = sizes.image_size
  images, labels = jnp.asarray(normal(0, b, side, side, 3)), jnp.arange(b)
  if kind == 'inference':
    run = functools.partial(network_step.infer, model)
    found = measure(run, jax.device_put(state['variables']), images)
  else:
    step = functools.partial(network_step.train_step, model)
    # A copy: the first step uses it up.
    found = measure_steps(step, jax.device_put(state, may_alias=False), images, labels)
  return {**found, 'images_per_s': round(1e3 * b / found['ms'], 1)}


@functools.cache
def initial_state(name: str, image_size: int) -> Any:
  """A state of random values in NumPy: to compile a network's own initialisation takes half a minute.

  Matrices and kernels are LeCun normal, so that offsets are no integers, as after some steps of training.
  """
  model = network_step.network(name, 'float32')
  shapes = jax.eval_shape(lambda: network_step.initial_state(model, image_size))
  rng = np.random.default_rng(0)

  def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    if leaf.ndim < 2:
      return np.full(leaf.shape, path[-1].key in ONES, leaf.dtype)
    values = rng.standard_normal(leaf.shape, np.float32) / math.sqrt(math.prod(leaf.shape[:-1]))
    return values.astype(leaf.dtype)

  variables = jax.tree_util.tree_map_with_path(draw, shapes['variables'])
  optimizer = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes['optimizer'])
  return {'variables': variables, 'optimizer': optimizer}
