"""Inference and a training step of a network alone: by jax, flax and optax, without data, recipe or trainer.

A training step is what every recipe's has that costs a card time: cross-entropy of the scores of every stage,
gradients of all parameters, BatchNorm's statistics, an update by AdamW.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ctx_flax.models import Network, create_model

DROP_PATH_RATE = 0.1


def network(name: str, dtype: str, num_classes: int = 1000) -> Network:
  """A network of the table as it is trained: ConvNeXts have stochastic depth."""
  options = {'drop_path_rate': DROP_PATH_RATE} if 'convnext' in name else {}
  return create_model(name, num_classes=num_classes, dtype=dtype, **options)


def initial_state(model: Network, image_size: int) -> dict[str, Any]:
  """{'variables': ..., 'optimizer': ...}; under jax.eval_shape the shapes alone."""
  variables = model.init(jax.random.key(0), jnp.zeros((1, image_size, image_size, 3)))
  return {'variables': variables, 'optimizer': _optimizer().init(variables['params'])}


def infer(model: Network, variables: Any, images: jax.Array) -> jax.Array:
  """Logits (b, n) of images (b, h, w, 3)."""
  return model.apply(variables, images, train=False)[0]


def train_step(
  model: Network, state: dict[str, Any], images: jax.Array, labels: jax.Array
) -> tuple[dict[str, Any], jax.Array]:
  """The state after one step on images (b, h, w, 3) and labels (b,), and the loss."""
  variables = state['variables']
  statistics = {name: value for name, value in variables.items() if name != 'params'}

  def loss(params: Any) -> tuple[jax.Array, Any]:
    (_, out), updated = model.apply(
      {'params': params, **statistics},
      images,
      train=True,
      rngs={'drop_path': jax.random.key(1)},
      mutable=list(statistics),
    )
    scores = [value for name, value in out.items() if name.startswith('scores')]
    return jnp.sum(jnp.stack([_cross_entropy(each, labels) for each in scores])), updated

  (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(variables['params'])
  with jax.named_scope('optimizer'):
    updates, optimizer = _optimizer().update(gradients, state['optimizer'], variables['params'])
    params = optax.apply_updates(variables['params'], updates)
  return {'variables': {'params': params, **updated}, 'optimizer': optimizer}, value


def _cross_entropy(scores: jax.Array, labels: jax.Array) -> jax.Array:
  return optax.softmax_cross_entropy_with_integer_labels(scores.astype(jnp.float32), labels).mean()


@functools.cache
def _optimizer() -> optax.GradientTransformation:
  return optax.adamw(1e-3, weight_decay=0.05)
