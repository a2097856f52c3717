"""ConvNeXt and Contextual ConvNeXt.

Plain: https://arxiv.org/abs/2201.03545. Contextual: the paper, section 3 and supplementary Table 1.
"""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_flax.layers.blocks import ConvNeXtBlock, rematerialised
from ctx_flax.layers.linear import Linear, normal_002
from ctx_flax.layers.normalization import LayerNorm
from ctx_flax.layers.pooling import extents_of, global_average_pool
from ctx_flax.models.layer_ids import layer_id, num_layers
from ctx_flax.models.limits import FRACTION, FROM_0, Limit, at_least
from ctx_flax.models.network import Network
from ctx_flax.ops.depthwise_conv import PATHS


class ConvNeXt(Network):
  """ConvNeXt, plain or contextual.

  Attributes, beside those of Network (this family has no BatchNorm to synchronise):
    drop_path_rate: of the last block; grows linearly from 0 at the first.
    drop_path_in_contextual: False exempts contextual blocks.
    layer_scale_init: 0 leaves the layer scale out.
    stem_stride: pixels per side of a patch; the image must have at least 8 * stem_stride.
    depthwise_path: the code of the plain depthwise convolutions, a name of
      ctx_flax.ops.depthwise_conv.PATHS; '' chooses by platform.
  """

  depths: tuple[int, ...] = (3, 3, 9, 3)
  dims: tuple[int, ...] = (96, 192, 384, 768)
  drop_path_rate: float = 0.0
  drop_path_in_contextual: bool = True
  layer_scale_init: float = 1e-6
  stem_stride: int = 4
  depthwise_path: str = ''

  default_contextual_every = 3
  contextual_conv = 'dwconv'
  output_norms = True  # the last thing a stage does is to add
  class_head = 'norm/scale', 'norm/bias', 'head/kernel', 'head/bias'
  contextual_options = *Network.contextual_options, 'drop_path_in_contextual'
  limits: ClassVar[Mapping[str, Limit]] = {
    **Network.limits,
    'drop_path_rate': FRACTION,
    'layer_scale_init': FROM_0,
    'stem_stride': at_least(1),
  }
  choices: ClassVar[Mapping[str, tuple[str, ...]]] = {**Network.choices, 'depthwise_path': ('', *PATHS)}

  @property
  def strides(self) -> tuple[int, ...]:
    return tuple(self.stem_stride * 2**i for i in range(len(self.dims)))

  @property
  def num_layers(self) -> int:
    """See ctx_flax.models.layer_ids."""
    return num_layers(self.depths)

  @nn.nowrap
  def layer_id(self, name: str) -> int:
    """See ctx_flax.models.layer_ids."""
    return layer_id(name, self.depths, stem=('stem_conv', 'stem_norm'))

  @nn.nowrap
  def first_centre(self, scale: float) -> float:
    return (scale - 1) / 2  # it cuts patches: position 0 covers the first `scale` pixels

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
    """See Network; train_norm has no effect, as LayerNorm has no statistics."""
    del train_norm
    self.check_images(images)
    funnel = self.class_funnel(images.shape[0], class_counts=class_counts, add=add, replace=replace)
    extents = extents_of(valid_hw, padded_hw)
    x, number = images, 0
    for stage, depth in enumerate(self.depths, 1):
      x = self._downsample(x, stage)
      extents = extents.map(functools.partial(_cut, size=self.stem_stride if stage == 1 else 2))
      valid, padded = extents.valid(x), extents.padded(x)
      for i in range(depth):
        x, adaptation = self._block(stage, i, number)(x, funnel.context, valid, train, padded)
        funnel.out.record_adaptation(f'{stage}.{i}', adaptation)
        number += 1
      x = funnel.out.record(f'stage{stage}', x)
      if stage < len(self.dims):
        funnel.narrow(x, stage, valid, train=train)
    if features_only:
      return None, funnel.out.finish()
    pooled = funnel.out.record('pre_logits', global_average_pool(x, valid))
    logits = funnel.narrow(pooled, stage, train=train)
    if logits is None:
      dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
      pooled = LayerNorm(**dtypes, name='norm')(pooled)
      logits = funnel.classify(Linear(self.num_classes, **dtypes, name='head')(pooled), stage)
    return logits, funnel.out.finish()

  @nn.nowrap
  def _downsample(self, x: jax.Array, stage: int) -> jax.Array:
    """Patches of the image, or of the map of the stage before; a remainder of pixels is left out."""
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    size = (self.stem_stride if stage == 1 else 2,) * 2
    name = 'stem' if stage == 1 else f'downsample{stage}'
    if stage > 1:
      x = LayerNorm(**dtypes, name=f'{name}_norm')(x)
    dim = self.dims[stage - 1]
    x = nn.Conv(dim, size, size, 'VALID', kernel_init=normal_002, **dtypes, name=f'{name}_conv')(x)
    return LayerNorm(**dtypes, name='stem_norm')(x) if stage == 1 else x

  @nn.nowrap
  def _block(self, stage: int, i: int, number: int) -> nn.Module:
    """Block i of a stage, the `number`-th of all."""
    contextual = self.is_contextual(stage, i)
    rate = self.drop_path_rate * number / max(sum(self.depths) - 1, 1)
    return (rematerialised(ConvNeXtBlock) if self.remat else ConvNeXtBlock)(
      contextual=contextual,
      branch_dim=self.branch_dim or None,
      mask_gain=self.mask_gain,
      ablate=self.ablate,
      drop_path_rate=0.0 if contextual and not self.drop_path_in_contextual else rate,
      layer_scale_init=self.layer_scale_init,
      depthwise_path=self.depthwise_path,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name=f'stage{stage}_block{i}',
    )


def _cut(hw: jax.Array, size: int) -> jax.Array:
  """How many whole patches fit; a part of one counts where there is no other, so that a mean exists."""
  return jnp.maximum(hw // size, 1)
