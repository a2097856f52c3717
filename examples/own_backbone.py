"""A backbone of your own that excludes classes on the way: after each stage it keeps the likelier ones.

python examples/own_backbone.py
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ctx_flax.layers import ContextualConv, Contextualizer
from ctx_flax.models.class_funnel import ClassFunnel

CLASSES, KEPT, DIMS = 20, (10, 5), (16, 24, 32)  # stage 2 considers 10 of 20 classes, stage 3 five of them


class Backbone(nn.Module):
  """Images (b, 16, 16, 3) -> logits (b, 20), -inf for excluded classes, and what happened on the way."""

  @nn.compact
  def __call__(self, images):
    layers = Contextualizer(
      CLASSES, KEPT, head_dims=DIMS, context_dims=DIMS[:-1], embed_dim=16, name='contextualizer'
    )
    funnel = ClassFunnel(layers, len(images))
    x = nn.gelu(nn.Conv(DIMS[0], (3, 3))(images))
    funnel.narrow(x, 1)  # scores all classes, keeps 10 and merges them into a context for each image
    for stage, dim in enumerate(DIMS[1:], 2):
      x = nn.Conv(dim, (2, 2), 2)(nn.LayerNorm()(x))
      y, _ = ContextualConv(dim, kernel_size=3)(x, funnel.context)
      x = x + nn.gelu(y)
      logits = funnel.narrow(x, stage)  # the last stage scores what is left
    return logits, funnel.out.finish()


def batch(key, size=32):
  """Noise over the colour and the pattern of a class, both drawn at random."""
  labels = jax.random.randint(key, (size,), 0, CLASSES)
  colours = 2 * jax.random.normal(jax.random.key(98), (CLASSES, 1, 1, 3))
  patterns = jax.random.normal(jax.random.key(99), (CLASSES, 16, 16, 3)) + colours
  return patterns[labels] + 0.5 * jax.random.normal(key, (size, 16, 16, 3)), labels


def main(steps=200):
  model, tx = Backbone(), optax.adam(3e-3)
  params = jax.jit(model.init)(jax.random.key(0), batch(jax.random.key(0))[0])
  state = tx.init(params)

  @jax.jit
  def step(params, state, key):
    images, labels = batch(key)

    def loss(params):
      _, out = model.apply(params, images)
      total = 0.0
      for stage in (1, 2, 3):  # each stage learns from the images whose class it still considers
        scores, alive = out[f'scores{stage}'], out[f'alive{stage}']
        counts = jnp.take_along_axis(alive, labels[:, None], 1)[:, 0]
        each = optax.softmax_cross_entropy_with_integer_labels(jnp.where(alive, scores, -1e9), labels)
        total += jnp.sum(jnp.where(counts, each, 0)) / jnp.maximum(jnp.sum(counts), 1)
      return total / 3

    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = tx.update(gradient, state)
    return optax.apply_updates(params, updates), state, value

  losses = []
  for i in range(steps):
    params, state, value = step(params, state, jax.random.key(i))
    losses.append(float(value))
  images, labels = batch(jax.random.key(steps))
  logits, out = jax.jit(model.apply)(params, images)
  kept = [int(out[f'alive{stage}'][0].sum()) for stage in (1, 2, 3)]
  still = [float(jnp.take_along_axis(out[f'alive{stage}'], labels[:, None], 1).mean()) for stage in (2, 3)]
  print(f'loss {losses[0]:.3f} at first, {losses[-1]:.3f} after {steps} steps')
  print(f'the stages decide between {kept[0]}, {kept[1]} and {kept[2]} classes; the right one is among')
  print(f'them at stage 2 for {still[0]:.0%} of new images and at stage 3 for {still[1]:.0%}')
  print(f'{(logits.argmax(-1) == labels).mean():.0%} of them are classified correctly')
  return losses


if __name__ == '__main__':
  main()
