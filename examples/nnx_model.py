"""The Linen layers in an NNX model, through nnx.bridge.ToNNX.

python examples/nnx_model.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from flax.nnx import bridge
from sklearn.datasets import load_digits

from ctx_flax.layers import ContextualConv


class Digits(nnx.Module):
  """8x8 images -> scores of ten digits."""

  def __init__(self, rngs):
    self.first = nnx.Conv(1, 32, (3, 3), rngs=rngs)
    self.context = nnx.Linear(32, 16, rngs=rngs)
    contextual = bridge.ToNNX(ContextualConv(32, kernel_size=3), rngs=rngs)
    self.contextual = contextual.lazy_init(
      jnp.ones((1, 8, 8, 32)), jnp.ones((1, 16))
    )  # shapes make its parameters
    self.second = nnx.Conv(32, 64, (3, 3), 2, rngs=rngs)
    self.head = nnx.Linear(64, 10, rngs=rngs)

  def __call__(self, x):
    x = nnx.gelu(self.first(x))
    x, _ = self.contextual(x, nnx.relu(self.context(x.mean((1, 2)))))
    x = nnx.gelu(self.second(x))
    return self.head(x.mean((1, 2)))


@nnx.jit
def step(model, optimizer, images, labels):
  def loss(model):
    return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

  value, gradient = nnx.value_and_grad(loss)(model)
  optimizer.update(model, gradient)
  return value


def main(steps=200):
  images, labels = load_digits(return_X_y=True)
  images, labels = jnp.asarray(images.reshape(-1, 8, 8, 1) / 16, jnp.float32), jnp.asarray(labels)
  model = Digits(nnx.Rngs(0))
  optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
  losses = []
  for i in range(steps):
    rows = jax.random.choice(jax.random.key(i), len(labels), (64,))
    losses.append(float(step(model, optimizer, images[rows], labels[rows])))
  print(f'loss {losses[0]:.3f} at first, {losses[-1]:.3f} after {steps} steps')
  return losses


if __name__ == '__main__':
  main()
