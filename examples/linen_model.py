"""A Linen model of your own with a contextual convolution: the context says what the whole image looks like.

python examples/linen_model.py
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from ctx_flax.layers import ContextualConv


class Digits(nn.Module):
  """8x8 images -> scores of ten digits."""

  @nn.compact
  def __call__(self, x):
    x = nn.gelu(nn.Conv(32, (3, 3))(x))
    context = nn.relu(nn.Dense(16)(x.mean((1, 2))))  # (b, e), one vector per image
    x, adaptation = ContextualConv(32, kernel_size=3)(x, context)
    x = nn.gelu(nn.Conv(64, (3, 3), 2)(x))
    return nn.Dense(10)(x.mean((1, 2))), adaptation  # offsets, mask and kernel_delta, to look at


def main(steps=200):
  images, labels = load_digits(return_X_y=True)
  images, labels = jnp.asarray(images.reshape(-1, 8, 8, 1) / 16, jnp.float32), jnp.asarray(labels)
  model, tx = Digits(), optax.adam(3e-3)
  params = model.init(jax.random.key(0), images[:1])
  state = tx.init(params)

  @jax.jit
  def step(params, state, rows):
    def loss(params):
      scores, _ = model.apply(params, images[rows])
      return optax.softmax_cross_entropy_with_integer_labels(scores, labels[rows]).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = tx.update(gradient, state)
    return optax.apply_updates(params, updates), state, value

  losses = []
  for i in range(steps):
    rows = jax.random.choice(jax.random.key(i), len(labels), (64,))
    params, state, value = step(params, state, rows)
    losses.append(float(value))
  print(f'loss {losses[0]:.3f} at first, {losses[-1]:.3f} after {steps} steps')
  return losses


if __name__ == '__main__':
  main()
