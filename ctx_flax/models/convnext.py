"""ConvNeXt and Contextual ConvNeXt.

Plain: https://arxiv.org/abs/2201.03545. Contextual: the paper, section 3 and supplementary Table 1.
"""

from collections.abc import Hashable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ctx_flax.layers.blocks import ConvNeXtBlock
from ctx_flax.layers.linear import Linear, normal_002
from ctx_flax.layers.normalization import LayerNorm
from ctx_flax.layers.pooling import global_average_pool, valid_pixels
from ctx_flax.models.layer_ids import layer_id, num_layers
from ctx_flax.models.stages import (
  Intermediates,
  check_images,
  class_tables,
  contextualizer_of,
  next_context,
  score_stage,
)


class ConvNeXt(nn.Module):
  """ConvNeXt, plain or contextual.

  Attributes:
    num_classes: n.
    depths, dims: blocks and channels of the four stages.
    contextual: whether stages 2-4 have contextual blocks and class embeddings classify.
    embed_dim: size of a class embedding.
    class_counts: classes considered at stages 2, 3, 4; () scales the paper's 500, 200, 50 of 1000.
    class_selection: 'reduction' (the paper) or 'rerank' (the released code).
    contextual_every: every which block of stages 2-4, from the first on, is contextual; 0 is 3.
    mask_gain: the sampling mask is mask_gain * sigmoid.
    branch_dim: hidden size of the contextual branches; 0 derives it from the channels.
    drop_path_rate: of the last block; grows linearly from 0 at the first.
    drop_path_in_contextual: False exempts contextual blocks.
    layer_scale_init: 0 leaves the layer scale out.
    stem_stride: pixels per side of a patch; the image must have at least 8 * stem_stride.
    logit_scale_init: initial exp(tau).
    axis_name: accepted for all models; this one has no BatchNorm to synchronise.
    remat: computes blocks again in the backward pass instead of keeping their activations.
  """

  num_classes: int = 1000
  depths: tuple[int, ...] = (3, 3, 9, 3)
  dims: tuple[int, ...] = (96, 192, 384, 768)
  contextual: bool = False
  embed_dim: int = 256
  class_counts: tuple[int, ...] = ()
  class_selection: str = 'reduction'
  contextual_every: int = 0
  mask_gain: float = 1.0
  branch_dim: int = 0
  drop_path_rate: float = 0.0
  drop_path_in_contextual: bool = True
  layer_scale_init: float = 1e-6
  stem_stride: int = 4
  logit_scale_init: float = 1 / 0.07
  axis_name: Hashable | None = None
  remat: bool = False
  dtype: Any = None
  param_dtype: Any = jnp.float32

  def class_tables(self, variables):
    """See ctx_flax.models.stages.class_tables."""
    return class_tables(self, variables)

  @property
  def num_layers(self) -> int:
    """See ctx_flax.models.layer_ids."""
    return num_layers(self.depths)

  def layer_id(self, name: str) -> int:
    """See ctx_flax.models.layer_ids."""
    return layer_id(name, self.depths, stem=('stem_conv', 'stem_norm'))

  @nn.compact
  def __call__(
    self,
    images,
    *,
    train=False,
    train_norm=None,
    add=None,
    features_only=False,
    valid_hw=None,
    class_counts=None,
  ):
    """Classifies images.

    Args:
      images: (b, h, w, 3), normalised, sides at least 8 * stem_stride.
      train: enables stochastic depth (RNG stream 'drop_path').
      train_norm: accepted for all models; LayerNorm has no statistics.
      add: arrays added to named intermediates, see Intermediates.
      features_only: stops before the stage-4 head; logits are None.
      valid_hw: (b, 2) int, the size of each image where smaller ones are padded at the bottom and right;
        the padding then changes neither features inside the image nor contexts.
      class_counts: int (3,), traced or not, instead of the attribute: numbers that change while training.

    Returns:
      logits: (b, n) float32 in natural class order, -inf for classes no longer considered.
      out: the named intermediates: 'stage1'..'stage4', 'pre_logits', 'scores4', 'logits4', 'considered4' and,
        if contextual, the same three of stages 1-3, 'context2'..'context4', and 'offsets', 'mask',
        'kernel_delta' as dicts keyed 'stage.block'.

    Raises:
      ValueError: images of a wrong shape or too small.
    """
    del train_norm
    check_images(images, 8 * self.stem_stride)
    out, context, valid = Intermediates(add), None, None
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    block = nn.remat(ConvNeXtBlock, static_argnums=(4,)) if self.remat else ConvNeXtBlock
    considered = jnp.ones((images.shape[0], self.num_classes), bool)
    if self.contextual:
      contextualizer = contextualizer_of(self)

    def patches(x, features, size, name):  # 'VALID': a remainder of pixels is left out
      window = (size, size)
      conv = nn.Conv(features, window, window, 'VALID', kernel_init=normal_002, **dtypes, name=name)
      return conv(x)

    x, number = images, 0
    for stage, (depth, dim) in enumerate(zip(self.depths, self.dims, strict=True), 1):
      if stage == 1:
        x = LayerNorm(**dtypes, name='stem_norm')(patches(x, dim, self.stem_stride, 'stem_conv'))
        shrink = self.stem_stride
      else:
        x = LayerNorm(**dtypes, name=f'downsample{stage}_norm')(x)
        x = patches(x, dim, 2, f'downsample{stage}_conv')
        shrink = 2
      if valid_hw is not None:
        valid_hw = valid_hw // shrink
        valid = valid_pixels(valid_hw, *x.shape[1:3])
      for i in range(depth):
        contextual = self.contextual and stage > 1 and i % (self.contextual_every or 3) == 0
        rate = self.drop_path_rate * number / max(sum(self.depths) - 1, 1)
        x, adaptation = block(
          contextual=contextual,
          branch_dim=self.branch_dim or None,
          mask_gain=self.mask_gain,
          drop_path_rate=0.0 if contextual and not self.drop_path_in_contextual else rate,
          layer_scale_init=self.layer_scale_init,
          **dtypes,
          name=f'stage{stage}_block{i}',
        )(x, context, valid, train)
        out.record_adaptation(f'{stage}.{i}', adaptation)
        number += 1
      x = out.record(f'stage{stage}', x)
      if self.contextual and stage < 4:
        pooled = global_average_pool(x, valid)
        scores, _ = score_stage(contextualizer, pooled, stage, considered, out, train=train)
        considered, context = next_context(contextualizer, scores, stage, considered, out, class_counts)

    if features_only:
      return None, out.finish()
    pooled = out.record('pre_logits', global_average_pool(x, valid))
    if self.contextual:
      _, logits = score_stage(contextualizer, pooled, 4, considered, out, train=train)
    else:
      pooled = LayerNorm(**dtypes, name='norm')(pooled)
      logits = Linear(self.num_classes, **dtypes, name='head')(pooled).astype(jnp.float32)
      logits = out.record('scores4', logits)
      out.update(logits4=logits, considered4=considered, alive4=considered)
    return logits, out.finish()
