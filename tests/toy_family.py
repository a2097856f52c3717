"""A family of networks of its own, as somebody would add it: three stages of one kind of block."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from ctx_flax.layers import ContextualConv, LayerNorm
from ctx_flax.layers.linear import Linear
from ctx_flax.layers.pooling import global_average_pool
from ctx_flax.models import Network
from ctx_flax.torch_weights.names import BLOCK, Source


class ToyBlock(nn.Module):
  """x + ReLU(norm(mix(x))), with a contextual 3x3 convolution or a plain one; halves the map if asked to."""

  features: int
  strides: int
  contextual: bool
  mask_gain: float
  ablate: tuple[str, ...]

  @nn.compact
  def __call__(self, x: jax.Array, context: jax.Array | None, train: bool) -> tuple[jax.Array, Any]:
    adaptation = None
    if self.contextual:
      options = {'mask_gain': self.mask_gain, 'ablate': self.ablate}
      conv = ContextualConv(self.features, 3, self.strides, **options, name='mix')
      y, adaptation = conv(x, context, train=train)
    else:
      y = nn.Conv(self.features, (3, 3), self.strides, [(1, 1), (1, 1)], name='mix')(x)
    y = nn.relu(LayerNorm(name='after')(y))
    return (x + y if x.shape == y.shape else y), adaptation


class Toy(Network):
  """Patches of 2 pixels, then stages whose first block halves the map, except in stage 1."""

  depths: tuple[int, ...] = (1, 2, 1)
  dims: tuple[int, ...] = (8, 12, 16)

  default_contextual_every = 2
  contextual_conv = 'mix'
  class_head = 'answer/kernel', 'answer/bias'

  @property
  def strides(self) -> tuple[int, ...]:
    return 2, 4, 8

  @nn.nowrap
  def first_centre(self, scale: float) -> float:
    return 0.5  # the middle of a patch; the padded convolutions stay on the first one

  @nn.nowrap
  def halves(self, stage: int, block: int) -> bool:
    return stage > 1 and block == 0

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    train_norm: bool | None = None,
    add: Mapping[str, jax.Array] | None = None,
    replace: Mapping[str, jax.Array] | None = None,
    features_only: bool = False,
    valid_hw: jax.Array | None = None,
    padded_hw: jax.Array | None = None,
    class_counts: jax.Array | None = None,
  ) -> tuple[jax.Array | None, dict[str, Any]]:
    self.check_images(images)
    funnel = self.class_funnel(images.shape[0], class_counts=class_counts, add=add, replace=replace)
    x = nn.Conv(self.dims[0], (2, 2), 2, 'VALID', name='patches')(images)
    for stage, (depth, dim) in enumerate(zip(self.depths, self.dims, strict=True), 1):
      for i in range(depth):
        strides, contextual = 2 if self.halves(stage, i) else 1, self.is_contextual(stage, i)
        options = {'mask_gain': self.mask_gain, 'ablate': self.ablate}
        block = ToyBlock(dim, strides, contextual, **options, name=f'stage{stage}_block{i}')
        x, adaptation = block(x, funnel.context, train)
        funnel.out.record_adaptation(f'{stage}.{i}', adaptation)
      x = funnel.out.record(f'stage{stage}', x)
      if stage < len(self.dims):
        funnel.narrow(x, stage, train=train)
    if features_only:
      return None, funnel.out.finish()
    pooled = funnel.out.record('pre_logits', global_average_pool(x))
    logits = funnel.narrow(pooled, stage, train=train)
    if logits is None:
      logits = funnel.classify(Linear(self.num_classes, name='answer')(pooled), stage)
    return logits, funnel.out.finish()


MODELS = {'toy': (Toy, {}), 'ctx_toy': (Toy, {'contextual': True})}
SOURCE = Source(
  'elsewhere',
  'Toy',
  r'toy\..*',
  (
    ('patches', 'toy.patches'),
    (f'{BLOCK}/mix', 'toy.{s}.{i}.mix'),
    (f'{BLOCK}/after', 'toy.{s}.{i}.after'),
    ('answer', 'toy.answer'),
  ),
)
