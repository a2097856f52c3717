"""The operations at the shapes of the networks, our one step beside two steps and beside XLA."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import detection_ops
from benchmarks.measure import median, program, ratio, take_turns
from ctx_flax.ops import contextual_conv, contextual_depthwise_conv, depthwise_conv

# (u = v, channels) of stages 2-4 at 224 px: those of ConvNeXt-T, and the 3x3 convolutions of ResNet50.
DEPTHWISE = (28, 192), (14, 384), (7, 768)
DENSE = (28, 128), (14, 256), (7, 512)
PLAIN = (56, 96), *DEPTHWISE


def run(settings):
  """Measures all operations: [row, ...] with times, ratios and memory."""
  rows = []
  for size, c in DEPTHWISE:
    rows += _compare('contextual depthwise 7x7', size, c, 7, contextual_depthwise_conv, settings)
  for size, c in DENSE:
    rows += _compare('contextual dense 3x3', size, c, 3, contextual_conv, settings)
  for size, c in PLAIN:
    rows += _compare('depthwise 7x7', size, c, 7, depthwise_conv, settings)
  return rows + detection_ops.run(settings)


# What ours is compared with; ours is what the platform gets.
REFERENCES = {contextual_depthwise_conv: 'two_steps', contextual_conv: 'two_steps', depthwise_conv: 'xla'}


def arguments(function, b, size, c, k, dtype):
  """Random inputs; offsets of about a pixel, as a trained network has them."""
  rng = np.random.default_rng(0)

  def normal(*shape, scale=1.0, dtype=dtype):
    return jnp.asarray(rng.normal(size=shape) * scale, dtype)

  x = normal(b, size, size, c)
  if function is depthwise_conv:
    return x, normal(k, k, 1, c, scale=1 / k)
  kernel = normal(k, k, 1 if function is contextual_depthwise_conv else c, c, scale=1 / k)
  delta, offsets = normal(b, k, k, c, scale=0.1), normal(b, size, size, k * k, 2, dtype=jnp.float32)
  mask = jax.nn.sigmoid(normal(b, size, size, k * k, dtype=jnp.float32))
  return x, kernel, delta, offsets, mask


def _compare(name, size, c, k, function, settings):
  """One row per path: the reference first."""
  inputs = arguments(function, settings.batch, size, c, k, settings.dtype)
  slow, fast = REFERENCES[function], None
  forward, both = {}, {}
  for path in (slow, fast):
    call = functools.partial(function, padding=k // 2, path=path)

    def loss(*inputs, call=call):
      return jnp.sum(jnp.square(call(*inputs).astype(jnp.float32)))

    forward[path] = program(call, *inputs)
    both[path] = program(jax.grad(loss, tuple(range(len(inputs)))), *inputs)
  seconds = take_turns({path: made.run for path, made in forward.items()}, settings.rounds)
  seconds_both = take_turns({path: made.run for path, made in both.items()}, settings.rounds)
  flops, traffic = work(function, settings.batch, size, c, k, jnp.dtype(settings.dtype).itemsize)
  rows = []
  for path in (slow, fast):
    took = median(seconds[path])
    rows.append(
      {
        'operation': name,
        'shape': f'{settings.batch} x {size} x {size} x {c}',
        'path': path.replace('_', ' ') if path else 'ours',
        'forward ms': 1e3 * took,
        'x': ratio(seconds[slow], seconds[path]),
        'temp MB': forward[path].temp_bytes / 1e6,
        'forward + backward ms': 1e3 * median(seconds_both[path]),
        'x ': ratio(seconds_both[slow], seconds_both[path]),
        'temp MB ': both[path].temp_bytes / 1e6,
        '% of peak FLOP/s': 100 * flops / took / settings.peak.flops,
        '% of peak bytes/s': 100 * traffic / took / settings.peak.bandwidth,
      }
    )
  return rows


def work(function, b, size, c, k, itemsize):
  """(FLOP, bytes) of a forward pass: what any way of computing it must do.

  A sample is four multiply-adds, its use in the sum one more (dense: one per output channel); inputs are read
  and the output is written once.
  """
  positions = b * size * size
  samples = positions * k * k * c
  image, maps = positions * c * itemsize, positions * k * k * 3 * 4
  if function is depthwise_conv:
    return 2 * samples, 2 * image
  if function is contextual_depthwise_conv:
    return 10 * samples, 2 * image + maps
  return (8 + 2 * (c + 1)) * samples, 2 * image + maps
