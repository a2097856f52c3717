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
  MulticlassDetections,
  bilinear_sample,
  box_iou,
  contextual_conv,
  contextual_depthwise_conv,
  decode_boxes,
  deform_conv,
  depthwise_conv,
  mask_targets,
  multiclass_nms,
  nms,
  pyramid_roi_align,
  roi_align,
)
from ctx_flax.torch_weights import load_torch_weights, to_torch


def operations(x: jax.Array, kernel: jax.Array, offsets: jax.Array, delta: jax.Array) -> jax.Array:
  y = deform_conv(x, kernel, offsets, strides=(2, 2), padding=((1, 1), (1, 1)), groups=2)
  y = contextual_conv(y, kernel, delta, offsets, padding='SAME')
  y = contextual_depthwise_conv(y, kernel, None, offsets, jnp.ones(offsets.shape[:-1]), padding=(1, 1))
  return bilinear_sample(depthwise_conv(y, kernel, padding=1), offsets)


def detection(maps: list[jax.Array], boxes: jax.Array, scores: jax.Array, masks: jax.Array) -> jax.Array:
  boxes = decode_boxes(jnp.zeros_like(boxes), boxes, stds=(0.1, 0.1, 0.2, 0.2), hw=(480, 640))
  indices, kept = nms(boxes, scores[:, 0], threshold=0.7, limit=100)
  detections: MulticlassDetections = multiclass_nms(
    boxes, scores, score_threshold=0.05, threshold=0.5, limit=100
  )
  regions = pyramid_roi_align(maps, boxes[indices], strides=(4, 8), size=7, valid_hw=jnp.array([480, 640]))
  regions += roi_align(maps[0], detections.boxes, size=(7, 7), scale=0.25, sampling_ratio=2)
  targets = mask_targets(masks, boxes, detections.rows, size=28)
  return regions.sum() + targets.sum() + jnp.where(kept, box_iou(boxes, boxes)[0, indices], 0).sum()


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
