"""Box heads: from the features of a region to its class and, for each class, a better box.

Letters: r regions, n classes; the background is class n. Layout and initial values are MMDetection's.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from ctx_flax.layers.feature_pyramid import xavier_uniform
from ctx_flax.layers.linear import he_fan_out
from ctx_flax.layers.normalization import BatchNorm


class BoxHead(nn.Module):
  """3x3 convolutions with BatchNorm and ReLU, then linear layers with ReLU, then one each for class and box.

  Mask R-CNN has no convolution and two linear layers, Cascade Mask R-CNN four and one.

  Attributes:
    num_classes: n.
    convs, fcs: numbers of convolutions and of linear layers.
    features, hidden: channels of the convolutions, and size of the linear layers.
    axis_name: pmapped axis over which BatchNorm takes its statistics; None: per device.
  """

  num_classes: int
  convs: int = 0
  fcs: int = 2
  features: int = 256
  hidden: int = 1024
  axis_name: Any = None
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: jax.Array, valid: jax.Array | None = None, *, train: bool = False
  ) -> tuple[jax.Array, jax.Array]:
    """Applies the head.

    Args:
      x: (r, h, w, c).
      valid: (r,) bool, the regions that count in BatchNorm's statistics; None for all.
      train: whether BatchNorm uses and updates batch statistics.

    Returns:
      logits: (r, n + 1) float32.
      deltas: (r, n, 4) float32, as ctx_flax.ops.decode_boxes takes them.
    """
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    for i in range(self.convs):
      x = nn.Conv(
        self.features, (3, 3), padding=1, use_bias=False, kernel_init=he_fan_out, **dtypes, name=f'conv{i}'
      )(x)
      x = nn.relu(BatchNorm(axis_name=self.axis_name, **dtypes, name=f'bn{i}')(x, train=train, valid=valid))
    x = x.reshape(len(x), -1)
    for i in range(self.fcs):
      x = nn.relu(nn.Dense(self.hidden, kernel_init=xavier_uniform, **dtypes, name=f'fc{i}')(x))
    n = self.num_classes
    logits = nn.Dense(n + 1, kernel_init=initializers.normal(0.01), **dtypes, name='cls')(x)
    deltas = nn.Dense(4 * n, kernel_init=initializers.normal(0.001), **dtypes, name='reg')(x)
    return logits.astype(jnp.float32), deltas.astype(jnp.float32).reshape(-1, n, 4)
