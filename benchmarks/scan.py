"""Repeated blocks one after the other, and as a loop over stacked parameters: compile time against speed."""

import jax
import jax.numpy as jnp

from benchmarks.measure import median, program, ratio, take_turns
from ctx_flax.layers import ConvNeXtBlock

# The third stage of Contextual ConvNeXt-T: three times one contextual and two plain blocks.
GROUPS = 3
PLAIN = 2
CHANNELS, CONTEXT = 384, 192


def run(settings):
  """[row, ...] of the gradients of the stage, without and with a scan over its groups."""
  size = max(settings.image_size // 16, 1)
  x = jnp.ones((settings.batch, size, size, CHANNELS), settings.dtype)
  context = jnp.ones((settings.batch, CONTEXT), settings.dtype)
  contextual = ConvNeXtBlock(contextual=True, dtype=settings.dtype)
  plain = ConvNeXtBlock(dtype=settings.dtype)
  keys = jax.random.split(jax.random.key(0), PLAIN + 1)
  group = [jax.jit(contextual.init)(keys[0], x, context), *(jax.jit(plain.init)(key, x) for key in keys[1:])]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[group] * GROUPS)

  def apply_group(x, group):
    x = contextual.apply(group[0], x, context)[0]
    for variables in group[1:]:
      x = plain.apply(variables, x)[0]
    return x, None

  def unrolled(x, stacked):
    for i in range(GROUPS):
      x, _ = apply_group(x, jax.tree.map(lambda leaf, i=i: leaf[i], stacked))
    return x

  def scanned(x, stacked):
    return jax.lax.scan(apply_group, x, stacked)[0]

  made = {}
  for name, stage in (('one after the other', unrolled), ('scanned', scanned)):

    def loss(x, stacked, stage=stage):
      return jnp.sum(jnp.square(stage(x, stacked).astype(jnp.float32)))

    made[name] = program(jax.grad(loss, (0, 1)), x, stacked)
  seconds = take_turns({name: one.run for name, one in made.items()}, settings.rounds)
  return [
    {
      'blocks': name,
      'trace s': one.trace_seconds,
      'compile s': one.compile_seconds,
      'ms': 1e3 * median(seconds[name]),
      'x': ratio(seconds['one after the other'], seconds[name]),
      'temp MB': one.temp_bytes / 1e6,
    }
    for name, one in made.items()
  ]
