"""ResNet with bottleneck blocks and its contextual form.

Plain: https://arxiv.org/abs/1512.03385, the stride on the 3x3. Contextual: the paper, section 3 and
supplementary Table 1.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_flax.layers.blocks import Bottleneck
from ctx_flax.layers.linear import Linear, he_fan_out
from ctx_flax.layers.normalization import BatchNorm
from ctx_flax.layers.pooling import global_average_pool, valid_pixels, zero_invalid
from ctx_flax.models.layer_ids import layer_id, num_layers
from ctx_flax.models.stages import (
  Intermediates,
  check_images,
  class_tables,
  contextualizer_of,
  next_context,
  score_stage,
)


class ResNet(nn.Module):
  """ResNet, plain or contextual.

  Attributes:
    num_classes: n.
    depths, dims: blocks and 3x3 widths of the four stages; a stage has 4 * width channels.
    contextual: whether stages 2-4 have contextual blocks and class embeddings classify.
    embed_dim: size of a class embedding.
    class_counts: classes considered at stages 2, 3, 4; () scales the paper's 500, 200, 50 of 1000.
    class_selection: 'reduction' (the paper) or 'rerank' (the released code).
    contextual_every: every which block of stages 2-4, from the first on, is contextual; 0 is 2.
    mask_gain: the sampling mask is mask_gain * sigmoid.
    branch_dim: hidden size of the contextual branches; 0 derives it from the channels.
    logit_scale_init: initial exp(tau).
    shift: applied to the input of every residual branch (see Bottleneck).
    axis_name: pmapped axis over which BatchNorm averages its statistics; None: per device.
    remat: computes blocks again in the backward pass instead of keeping their activations.
  """

  num_classes: int = 1000
  depths: tuple[int, ...] = (3, 4, 6, 3)
  dims: tuple[int, ...] = (64, 128, 256, 512)
  contextual: bool = False
  embed_dim: int = 256
  class_counts: tuple[int, ...] = ()
  class_selection: str = 'reduction'
  contextual_every: int = 0
  mask_gain: float = 1.0
  branch_dim: int = 0
  logit_scale_init: float = 1 / 0.07
  shift: Callable[[jax.Array], jax.Array] = lambda x: x
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
    return layer_id(name, self.depths, stem=('conv1', 'bn1'))

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
      images: (b, h, w, 3), normalised.
      train: BatchNorm uses and updates batch statistics (apply with mutable=['batch_stats']).
      train_norm: overrides train for BatchNorm; False freezes its statistics.
      add: arrays added to named intermediates, see Intermediates.
      features_only: stops before the stage-4 head; logits are None.
      valid_hw: (b, 2) int, the size of each image where smaller ones are padded at the bottom and right;
        the padding then changes neither features inside the image nor contexts (with BatchNorm's running
        statistics; batch statistics are taken over all pixels).
      class_counts: int (3,), traced or not, instead of the attribute: numbers that change while training.

    Returns:
      logits: (b, n) float32 in natural class order, -inf for classes no longer considered.
      out: the named intermediates: 'stage1'..'stage4', 'pre_logits', 'scores4', 'logits4', 'considered4' and,
        if contextual, the same three of stages 1-3, 'context2'..'context4', and 'offsets', 'mask',
        'kernel_delta' as dicts keyed 'stage.block'.

    Raises:
      ValueError: images of a wrong shape.
    """
    check_images(images, 1)
    train_norm = train if train_norm is None else train_norm
    out, context, valid = Intermediates(add), None, None
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    norm = functools.partial(BatchNorm, axis_name=self.axis_name)
    block = nn.remat(Bottleneck, static_argnums=(4,)) if self.remat else Bottleneck
    considered = jnp.ones((images.shape[0], self.num_classes), bool)
    if self.contextual:
      contextualizer = contextualizer_of(self, norm=norm, linear_init='uniform')

    x = images
    if valid_hw is not None:
      x = zero_invalid(x, valid_pixels(valid_hw, *x.shape[1:3]))
      valid_hw = _halve(valid_hw)
    x = nn.Conv(
      self.dims[0],
      (7, 7),
      2,
      [(3, 3), (3, 3)],
      use_bias=False,
      kernel_init=he_fan_out,
      **dtypes,
      name='conv1',
    )(x)
    x = nn.relu(norm(**dtypes, name='bn1')(x, train=train_norm))
    if valid_hw is not None:
      x = zero_invalid(x, valid_pixels(valid_hw, *x.shape[1:3]))  # zeros lose against what ReLU lets through
      valid_hw = _halve(valid_hw)
    x = nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])

    for stage, (depth, width) in enumerate(zip(self.depths, self.dims, strict=True), 1):
      for i in range(depth):
        if valid_hw is not None:
          valid = valid_pixels(valid_hw, *x.shape[1:3])
        strides = 2 if stage > 1 and i == 0 else 1
        x, adaptation = block(
          width,
          strides,
          project=i == 0,
          contextual=self.contextual and stage > 1 and i % (self.contextual_every or 2) == 0,
          branch_dim=self.branch_dim or None,
          mask_gain=self.mask_gain,
          norm=norm,
          shift=self.shift,
          **dtypes,
          name=f'stage{stage}_block{i}',
        )(x, context, valid, train_norm)
        out.record_adaptation(f'{stage}.{i}', adaptation)
        if valid_hw is not None and strides == 2:
          valid_hw = _halve(valid_hw)
      if valid_hw is not None:
        valid = valid_pixels(valid_hw, *x.shape[1:3])
      x = out.record(f'stage{stage}', x)
      if self.contextual and stage < 4:
        pooled = global_average_pool(x, valid)
        scores, _ = score_stage(contextualizer, pooled, stage, considered, out, train=train_norm)
        considered, context = next_context(contextualizer, scores, stage, considered, out, class_counts)

    if features_only:
      return None, out.finish()
    pooled = out.record('pre_logits', global_average_pool(x, valid))
    if self.contextual:
      _, logits = score_stage(contextualizer, pooled, 4, considered, out, train=train_norm)
    else:
      logits = Linear(self.num_classes, 'uniform', **dtypes, name='fc')(pooled).astype(jnp.float32)
      logits = out.record('scores4', logits)
      out.update(logits4=logits, considered4=considered, alive4=considered)
    return logits, out.finish()


def _halve(size):
  return (size + 1) // 2
