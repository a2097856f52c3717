"""The head of a region proposal network: at every position of a map, which anchors hold an object.

Source: Ren et al., https://arxiv.org/abs/1506.01497; layout and initial values are MMDetection's.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers


class RPNHead(nn.Module):
  """3x3 convolution, ReLU and two 1x1 convolutions; the same for all maps of a pyramid.

  Attributes:
    features: channels of the 3x3 convolution.
    anchors: a, per position.
  """

  features: int = 256
  anchors: int = 3
  dtype: Any = None
  param_dtype: Any = jnp.float32

  def setup(self) -> None:
    self.conv = self._conv(self.features, 3)
    self.cls = self._conv(self.anchors, 1)
    self.reg = self._conv(4 * self.anchors, 1)

  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(b, h, w, c) -> logits (b, h, w, a) and deltas (b, h, w, a, 4), both float32."""
    x = nn.relu(self.conv(x))
    deltas = self.reg(x).astype(jnp.float32)
    return self.cls(x).astype(jnp.float32), deltas.reshape(*deltas.shape[:3], self.anchors, 4)

  def _conv(self, features: int, size: int) -> nn.Conv:
    return nn.Conv(
      features,
      (size, size),
      padding=size // 2,
      kernel_init=initializers.normal(0.01),
      dtype=self.dtype,
      param_dtype=self.param_dtype,
    )
