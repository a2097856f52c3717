"""The mask head: from the features of a region to a mask for each class.

Source: He et al., https://arxiv.org/abs/1703.06870; layout and initial values are MMDetection's.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from ctx_flax.layers.linear import he_fan_out


class MaskHead(nn.Module):
  """3x3 convolutions, a transposed one that doubles the sides, each with ReLU, and a 1x1 convolution.

  Attributes:
    num_classes: n.
    features: channels of all but the last.
    convs: number of 3x3 convolutions.
  """

  num_classes: int
  features: int = 256
  convs: int = 4
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """(r, h, w, c) -> logits (r, 2 * h, 2 * w, n) float32."""
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    for i in range(self.convs):
      x = nn.relu(
        nn.Conv(self.features, (3, 3), padding=1, kernel_init=he_fan_out, **dtypes, name=f'conv{i}')(x)
      )
    x = nn.relu(Upsampling(self.features, **dtypes, name='upsample')(x))
    logits = nn.Conv(self.num_classes, (1, 1), kernel_init=he_fan_out, **dtypes, name='logits')(x)
    return logits.astype(jnp.float32)


class Upsampling(nn.Module):
  """Transposed convolution 2x2 of stride 2: every pixel becomes four, (b, h, w, c) -> (b, 2h, 2w, features).

  Pixel (2i + y, 2j + x) is the product of kernel[y, x], (c, features), with pixel (i, j).
  """

  features: int
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    b, h, w, c = x.shape
    kernel = self.param('kernel', _he_fan_in, (2, 2, c, self.features), self.param_dtype)
    bias = self.param('bias', initializers.zeros, (self.features,), self.param_dtype)
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    y = jnp.einsum('bhwc,yxcd->bhywxd', x, kernel).reshape(b, 2 * h, 2 * w, self.features)
    return y + bias.reshape(1, 1, 1, -1)


def _he_fan_in(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
  """Normal, of standard deviation sqrt(2 / (kh * kw * c_in)), which PyTorch takes for the fan-out here."""
  kh, kw, c, _ = shape
  return initializers.normal((2.0 / (kh * kw * c)) ** 0.5)(key, shape, dtype)
