"""A program of somebody who checks types strictly: .ci/run holds mypy --strict to it. It never runs."""

import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_flax.layers import BatchNorm, ContextualConv, Contextualizer, DeformConv
from ctx_flax.models import MODELS, Network, create_model
from ctx_flax.models.class_funnel import ClassFunnel
from ctx_flax.ops import (
  bilinear_sample,
  contextual_conv,
  contextual_depthwise_conv,
  deform_conv,
  depthwise_conv,
)
from ctx_flax.torch_weights import load_torch_weights, to_torch


def operations(x: jax.Array, kernel: jax.Array, offsets: jax.Array, delta: jax.Array) -> jax.Array:
  y = deform_conv(x, kernel, offsets, strides=(2, 2), padding=((1, 1), (1, 1)), groups=2)
  y = contextual_conv(y, kernel, delta, offsets, padding='SAME')
  y = contextual_depthwise_conv(y, kernel, None, offsets, jnp.ones(offsets.shape[:-1]), padding=(1, 1))
  return bilinear_sample(depthwise_conv(y, kernel, padding=1), offsets)


class Own(nn.Module):
  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array | None, dict[str, Any]]:
    layers = Contextualizer(10, (5,), head_dims=(8, 16), context_dims=(8,), name='contextualizer')
    funnel = ClassFunnel(layers, x.shape[0])
    x = DeformConv(8, kernel_size=3)(x)
    funnel.narrow(x, 1)
    assert funnel.context is not None
    y, adaptation = ContextualConv(16, kernel_size=(3, 3), norm=BatchNorm)(x, funnel.context, train=True)
    mask: jax.Array = adaptation['mask']
    return funnel.narrow(y * mask.mean(), 2), funnel.out.finish()


def networks(path: pathlib.Path, images: jax.Array) -> jax.Array:
  model: Network = create_model('ctx_convnext_t', num_classes=10, class_counts=(8, 6, 4))
  variables = load_torch_weights(path, model, allow_missing=('contextual', 'head'))
  logits, out = model.apply(variables, images, train=False)
  context: jax.Array = out['context2']
  names = [*MODELS, *to_torch(variables, model, 'authors')]
  stride: int = model.strides[-1]
  return jnp.asarray(logits).sum() + context.mean() + len(names) + stride
