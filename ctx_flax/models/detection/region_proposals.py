"""A backbone with its feature pyramid and region proposal network: the first stage of a detector.

Letters: b images, p proposals. Everything that counts maps, stages or layers of a detector counts from 0, as
MMDetection does, whose rules (2.11) are followed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_flax.layers.feature_pyramid import FeaturePyramid
from ctx_flax.layers.normalization import LayerNorm
from ctx_flax.layers.pooling import valid_pixels
from ctx_flax.models.detection.proposals import Proposals, propose
from ctx_flax.models.detection.rpn_head import RPNHead
from ctx_flax.models.limits import FRACTION, Limit, at_least
from ctx_flax.models.network import Network


class RegionProposalNetwork(nn.Module):
  """Images -> their feature pyramid -> the boxes that may hold an object.

  Attributes:
    backbone: the network whose stages are the features; its BatchNorm keeps its statistics.
    channels: of the pyramid and of the convolutions on it.
    train_pre_nms, test_pre_nms: how many anchors of each map go into the proposals' NMS.
    train_proposals, test_proposals: p.
    proposal_threshold: of the IoU in the proposals' NMS.
    min_box_size: proposals without a larger width and height are dropped; below 0 none, as in MMDetection
      2.x. 3.x has 0, which drops boxes without area.
    allowed_border: by how many pixels an anchor that training uses may reach out of the image; below 0 any
      number.
    dtype, param_dtype: of the computation, None for that of images and parameters, and of the parameters.
      Boxes, logits and deltas are float32.
  """

  backbone: Network
  channels: int = 256
  train_pre_nms: int = 2000
  train_proposals: int = 1000
  test_pre_nms: int = 1000
  test_proposals: int = 1000
  proposal_threshold: float = 0.7
  min_box_size: float = -1.0
  allowed_border: int = -1
  dtype: Any = None
  param_dtype: Any = jnp.float32

  # What the numbers among the attributes may be.
  limits: ClassVar[Mapping[str, Limit]] = {
    **dict.fromkeys(('channels', 'train_pre_nms', 'train_proposals'), at_least(1)),
    **dict.fromkeys(('test_pre_nms', 'test_proposals'), at_least(1)),
    'proposal_threshold': FRACTION,
    'min_box_size': Limit(float, lambda value: abs(value) < float('inf'), 'a finite number'),
    'allowed_border': Limit(int, lambda value: True, 'any'),
  }

  @property
  def strides(self) -> tuple[int, ...]:
    """Image pixels per position of the pyramid's maps."""
    return *self.backbone.strides, 2 * self.backbone.strides[-1]

  @property
  def contextual(self) -> bool:
    """Whether the backbone is."""
    return self.backbone.contextual

  @property
  def mask_gain(self) -> float:
    """The backbone's."""
    return self.backbone.mask_gain

  @property
  def merge_contrast(self) -> bool:
    """Of the backbone: what its mergers mean depends on it."""
    return self.backbone.merge_contrast

  @property
  def fixed_parameters(self) -> tuple[str, ...]:
    """Regexes of the parameters that training leaves as the classification network had them."""
    patterns = [self.backbone.fixed_in_detectors] if self.backbone.fixed_in_detectors else []
    if self.contextual:  # the scores only select: no gradient reaches the image heads, only decay would
      patterns.append(r'contextualizer/(class_embedding|logit_scale|head\d+/.*)')
    return tuple(f'backbone/({pattern})' for pattern in patterns)

  @property
  def num_layers(self) -> int:
    """See ctx_flax.models.layer_ids."""
    return self.backbone.num_layers

  @nn.nowrap
  def layer_id(self, name: str) -> int:
    """See ctx_flax.models.layer_ids; all but the backbone's stages counts with the heads."""
    room, _, rest = name.partition('/')
    return self.backbone.layer_id(rest) if room == 'backbone' else self.num_layers + 1

  @nn.nowrap
  def example_shape(self, side: int = 0) -> tuple[int, ...]:
    """(h, w, 3) with sides of `side` or of one position of the last stage's map."""
    side = side or self.backbone.strides[-1]
    return side, side, 3

  @nn.nowrap
  def check_attributes(self) -> None:
    """ValueError, one line that names it, for an attribute that has no meaning."""
    for key, limit in self.limits.items():
      limit.check(key, getattr(self, key))

  @nn.nowrap
  def class_tables(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What the backbone's class selection computes from parameters alone, see Network.class_tables."""
    tables = self.backbone.class_tables({'params': variables['params']['backbone']})
    return {name: {'backbone': table} for name, table in tables.items()}

  def setup(self) -> None:
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    maps = len(self.backbone.dims) if self.backbone.output_norms else 0
    self.output_norms = [LayerNorm(**dtypes, name=f'output_norm{i}') for i in range(maps)]
    self.neck = FeaturePyramid(self.channels, **dtypes)
    self.rpn_head = RPNHead(self.channels, **dtypes)

  def features(
    self,
    images: jax.Array,
    *,
    padded_hw: jax.Array | None = None,
    valid_hw: jax.Array | None = None,
    train: bool = False,
  ) -> tuple[list[jax.Array], dict[str, Any]]:
    """The pyramid of a batch.

    Args:
      images: (b, h, w, 3), normalised; what lies beyond padded_hw does not matter.
      padded_hw: (b, 2) int, the size of each image with padding of its own, multiples of the last stage's
        stride; None: valid_hw rounded up to such. The result is the same on any larger canvas.
      valid_hw: (b, 2) int, the size of each image, which contexts are of; None: padded_hw. If both are None,
        all images fill the canvas.
      train: of the backbone: enables stochastic depth (RNG stream 'drop_path').

    Returns:
      pyramid: P2 to P6, [(b, h / stride, w / stride, channels), ...]; zero beyond padded_hw.
      out: the intermediates of the backbone, see Network.

    Raises:
      ValueError: images of a wrong shape; or sizes are given and the canvas is no multiple of the stride.
    """
    padded_hw = self._padded(images, padded_hw, valid_hw)
    _, out = self.backbone(
      images, train=train, train_norm=False, features_only=True, valid_hw=valid_hw, padded_hw=padded_hw
    )
    maps = [out[f'stage{stage}'] for stage, _ in enumerate(self.backbone.dims, 1)]
    if self.output_norms:
      maps = [norm(x) for norm, x in zip(self.output_norms, maps, strict=True)]
    if padded_hw is None:
      return self.neck(maps), out
    sizes = [x.shape[1:3] for x in maps]
    h, w = sizes[-1]
    sizes.append((-(-h // 2), -(-w // 2)))
    padded = [valid_pixels(-(-padded_hw // s), h, w) for s, (h, w) in zip(self.strides, sizes, strict=True)]
    return self.neck(maps, padded), out

  def rpn(self, pyramid: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
    """Logits [(b, h, w, 3)] and deltas [(b, h, w, 3, 4)] of the anchors of every map."""
    answers = [self.rpn_head(x) for x in pyramid]
    return [logits for logits, _ in answers], [deltas for _, deltas in answers]

  def proposals(
    self,
    logits: Sequence[jax.Array],
    deltas: Sequence[jax.Array],
    *,
    valid_hw: jax.Array | None = None,
    padded_hw: jax.Array | None = None,
    train: bool = False,
  ) -> Proposals:
    """The best boxes of `rpn`, without a gradient; sizes as in `features`, by default the whole maps."""
    if valid_hw is None:
      b, h, w, _ = logits[0].shape
      valid_hw = jnp.full((b, 2), self.strides[0]) * jnp.array([[h, w]])
    return propose(
      logits,
      deltas,
      self.strides,
      valid_hw=valid_hw,
      padded_hw=padded_hw,
      pre_nms=self.train_pre_nms if train else self.test_pre_nms,
      limit=self.train_proposals if train else self.test_proposals,
      threshold=self.proposal_threshold,
      min_size=self.min_box_size,
    )

  @nn.nowrap
  def _padded(
    self, images: jax.Array, padded_hw: jax.Array | None, valid_hw: jax.Array | None
  ) -> jax.Array | None:
    """padded_hw, or what it is by default."""
    self.backbone.check_images(images)
    h, w = images.shape[1:3]
    stride = self.backbone.strides[-1]
    if padded_hw is None and valid_hw is None:
      return None
    if h % stride or w % stride:
      raise ValueError(
        f'images have {h} x {w} pixels: with padded_hw or valid_hw both must be multiples of {stride}'
      )
    return padded_hw if padded_hw is not None else -(-jnp.asarray(valid_hw) // stride) * stride
