"""ResNet with bottleneck blocks and its contextual form, of images and of clips.

Plain: https://arxiv.org/abs/1512.03385, the stride on the 3x3. Contextual: the paper, section 3 and
supplementary Table 1. Clips: TSM, https://arxiv.org/abs/1811.08383, whose shift stands in front of the first
convolution of every residual branch; which classes a contextual network considers on a clip is ours.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_flax.layers.blocks import Bottleneck, rematerialised
from ctx_flax.layers.linear import Linear, he_fan_out
from ctx_flax.layers.normalization import BatchNorm
from ctx_flax.layers.pooling import Extents, extents_of, global_average_pool, zero_invalid
from ctx_flax.models.layer_ids import layer_id, num_layers
from ctx_flax.models.limits import FRACTION, FROM_0, Limit
from ctx_flax.models.network import Network

STEM_STRIDE = Limit(int, lambda value: value in (2, 4), '2 or 4')


class ResNet(Network):
  """ResNet, plain or contextual.

  Attributes, beside those of Network (a stage has 4 * its width of `dims` as channels):
    stem_stride: 4, a 7x7 convolution and a pooling that halve the sides each; or for small images 2, a 3x3
      convolution alone.
    branch_scale_init: initial scale of the last norm of every block; with 0 blocks start as the identity.
    temporal_shift: whether the frames of a clip exchange channels; on images there is nothing to exchange.
    context: which scores decide on a clip. 'clip': the mean of its frames' at every stage, so that a clip has
      one set of considered classes and one context; 'frame': each frame's own, and the prediction is the
      mean of the frames' probabilities. (A plain network averages scores, as TSM does.)
    dropout: share of the pooled features that training drops in front of the last head; 0 is off.
  """

  depths: tuple[int, ...] = (3, 4, 6, 3)
  dims: tuple[int, ...] = (64, 128, 256, 512)
  stem_stride: int = 4
  branch_scale_init: float = 0.0
  temporal_shift: bool = True
  context: str = 'clip'
  dropout: float = 0.0

  default_contextual_every = 2
  contextual_conv = 'conv2'
  fixed_in_detectors = r'(conv1|bn1|stage1_block\d+)/.*'  # the stem and stage 1, by custom
  class_head = 'fc/kernel', 'fc/bias'
  take_clips = True
  contextual_options = (*Network.contextual_options, 'context')
  limits: ClassVar[Mapping[str, Limit]] = {
    **Network.limits,
    'dropout': FRACTION,
    'stem_stride': STEM_STRIDE,
    'branch_scale_init': FROM_0,
  }
  choices: ClassVar[Mapping[str, tuple[str, ...]]] = {**Network.choices, 'context': ('clip', 'frame')}

  @property
  def strides(self) -> tuple[int, ...]:
    return tuple(self.stem_stride * 2**i for i in range(len(self.dims)))

  @property
  def smallest_side(self) -> int:
    return 1  # every convolution pads

  @property
  def num_layers(self) -> int:
    """See ctx_flax.models.layer_ids."""
    return num_layers(self.depths)

  @nn.nowrap
  def layer_id(self, name: str) -> int:
    """See ctx_flax.models.layer_ids."""
    return layer_id(name, self.depths, stem=('conv1', 'bn1'))

  @nn.nowrap
  def first_centre(self, scale: float) -> float:
    return 0.0  # strided convolutions and the pooling pad both sides: centred on pixel 0 of what they read

  @nn.nowrap
  def halves(self, stage: int, block: int) -> bool:
    return stage > 1 and block == 0

  @nn.nowrap
  def contextualizer_options(self) -> dict[str, Any]:
    return {'norm': self._norm(), 'linear_init': 'uniform'}

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
    """See Network."""
    self.check_images(images)
    dropout = nn.Dropout(self.dropout, deterministic=not train)
    train = train if train_norm is None else train_norm  # of the norms
    funnel = self.class_funnel(
      images.shape[0],
      class_counts=class_counts,
      add=add,
      replace=replace,
      frames=self.segments,
      per_frame=self.contextual and self.segments > 1 and self.context == 'frame',
    )
    extents = extents_of(valid_hw, padded_hw)
    if self.segments > 1:
      images = images.reshape(-1, *images.shape[2:])
      extents = extents.map(lambda hw: jnp.repeat(hw, self.segments, 0))
    x, extents = self._stem(images, extents, train)
    for stage, depth in enumerate(self.depths, 1):
      for i in range(depth):
        valid, padded = extents.valid(x), extents.padded(x)
        x, adaptation = self._block(stage, i)(x, funnel.context, valid, train, padded)
        funnel.out.record_adaptation(f'{stage}.{i}', adaptation)
        if self.halves(stage, i):
          extents = extents.map(_halve)
      valid = extents.valid(x)
      x = funnel.out.record(f'stage{stage}', x, of_frames=True)
      if stage < len(self.dims):
        funnel.narrow(x, stage, valid, train=train)
    if features_only:
      return None, funnel.out.finish()
    pooled = dropout(funnel.out.record('pre_logits', global_average_pool(x, valid), of_frames=True))
    logits = funnel.narrow(pooled, stage, train=train)
    if logits is None:
      fc = Linear(self.num_classes, 'uniform', dtype=self.dtype, param_dtype=self.param_dtype, name='fc')
      logits = funnel.classify(fc(pooled), stage)
    return logits, funnel.out.finish()

  @nn.nowrap
  def _norm(self) -> Callable[..., BatchNorm]:
    return functools.partial(BatchNorm, axis_name=self.axis_name)

  @nn.nowrap
  def _stem(self, x: jax.Array, extents: Extents, train: bool) -> tuple[jax.Array, Extents]:
    """A convolution and perhaps a pooling. Returns the map and how far the images reach in it."""
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    x, extents = zero_invalid(x, extents.padded(x)), extents.map(_halve)
    pad = 3 if self.stem_stride == 4 else 1
    conv = nn.Conv(
      self.dims[0],
      (2 * pad + 1,) * 2,
      2,
      [(pad, pad)] * 2,
      use_bias=False,
      kernel_init=he_fan_out,
      **dtypes,
      name='conv1',
    )
    x = nn.relu(self._norm()(**dtypes, name='bn1')(conv(x), train=train))
    if self.stem_stride == 2:
      return x, extents
    x = zero_invalid(x, extents.padded(x))  # zeros lose against what ReLU lets through
    extents = extents.map(_halve)
    return nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)]), extents

  @nn.nowrap
  def _block(self, stage: int, i: int) -> nn.Module:
    """Block i of a stage."""
    return (rematerialised(Bottleneck) if self.remat else Bottleneck)(
      self.dims[stage - 1],
      2 if self.halves(stage, i) else 1,
      project=i == 0,
      contextual=self.is_contextual(stage, i),
      branch_dim=self.branch_dim or None,
      mask_gain=self.mask_gain,
      ablate=self.ablate,
      norm=self._norm(),
      branch_scale_init=self.branch_scale_init,
      frames=self.segments if self.temporal_shift else 1,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name=f'stage{stage}_block{i}',
    )


def _halve(size: jax.Array) -> jax.Array:
  return (size + 1) // 2
