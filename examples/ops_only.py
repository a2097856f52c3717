"""The operations without Flax: a deformable convolution finds out by how much images were shifted.

python examples/ops_only.py
"""

import jax
import jax.numpy as jnp

from ctx_flax.ops import contextual_depthwise_conv, depthwise_conv

SHIFT = 0.6, -1.3  # (dy, dx) in pixels: what is to be found


def blurred(key, b=4, side=16, c=8):
  """Smooth random images (b, side, side, c)."""
  box = jnp.ones((7, 7, 1, c)) / 49
  return depthwise_conv(
    depthwise_conv(jax.random.normal(key, (b, side, side, c)), box, padding=3), box, padding=3
  )


def shifted(images, shift):
  """Every pixel sampled at its own place plus the shift: one tap, with the same offset everywhere."""
  b, h, w, c = images.shape
  offsets = jnp.broadcast_to(shift, (b, h, w, 1, 2))
  return contextual_depthwise_conv(images, jnp.ones((1, 1, 1, c)), None, offsets)


@jax.jit
def step(shift, images, target):
  def loss(shift):
    inner = (shifted(images, shift) - target)[:, 3:-3, 3:-3]  # zero padding reaches the border
    return jnp.mean(inner**2) / jnp.var(target)

  value, gradient = jax.value_and_grad(loss)(shift)
  return shift - 2.0 * gradient, value


def main(steps=200):
  images = blurred(jax.random.key(0))
  target = shifted(images, jnp.array(SHIFT))
  shift, losses = jnp.zeros(2), []
  for _ in range(steps):
    shift, value = step(shift, images, target)
    losses.append(float(value))
  print(f'shift {shift.round(2)} found, {SHIFT} was it; error {losses[0]:.3f} at first, {losses[-1]:.6f} now')
  return losses


if __name__ == '__main__':
  main()
