"""Feature Pyramid Network: maps of several resolutions that all know what the coarsest one knows.

Source: Lin et al., https://arxiv.org/abs/1612.03144; the layout, P6 and initial values are MMDetection's.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from ctx_flax.layers.pooling import zero_invalid

xavier_uniform = initializers.xavier_uniform()


class FeaturePyramid(nn.Module):
  """Maps of four strides, or any number, finest first -> as many of `features` channels, and one coarser.

  To a 1x1 convolution of each map (lateral0, ...) the sum of the next coarser one is added, enlarged by
  repeating pixels, and this sum goes through a 3x3 convolution (output0, ...). The last map is every other
  pixel of the one before.

  Attributes:
    features: channels of the pyramid.
    dtype: of the computation, None for that of the maps and parameters.
  """

  features: int = 256
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, maps: Sequence[jax.Array], padded: Sequence[jax.Array | None] | None = None
  ) -> list[jax.Array]:
    """Applies the layers.

    Args:
      maps: [(b, h, w, c), ...], finest first.
      padded: for every map of the pyramid, one more than `maps`, the pixels (b, h, w, 1) of the images and
        their own padding; convolutions see, and the pyramid holds, zeros elsewhere. None for all pixels.

    Returns:
      [(b, h, w, features), ...], the last one (b, ceil(h / 2), ceil(w / 2), features).
    """
    padded = padded or [None] * (len(maps) + 1)
    sums: list[jax.Array] = []
    for i, x in reversed(list(enumerate(maps))):
      x = self._conv(1, f'lateral{i}')(x)
      if sums:
        x = x + enlarge(sums[0], x.shape[1], x.shape[2])
      sums.insert(0, x)
    pyramid = [
      zero_invalid(self._conv(3, f'output{i}')(zero_invalid(x, padded[i])), padded[i])
      for i, x in enumerate(sums)
    ]
    return [*pyramid, zero_invalid(pyramid[-1][:, ::2, ::2], padded[-1])]

  def _conv(self, size: int, name: str) -> nn.Conv:
    return nn.Conv(
      self.features,
      (size, size),
      padding=size // 2,
      kernel_init=xavier_uniform,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name=name,
    )


def enlarge(x: jax.Array, h: int, w: int) -> jax.Array:
  """The nearest pixels, (b, y, x, c) -> (b, h, w, c): row i is row floor(i * y / h), as in PyTorch."""
  _, rows, columns, _ = x.shape
  for axis, (size, old) in enumerate(((h, rows), (w, columns)), 1):
    if size == 2 * old:
      x = jnp.repeat(x, 2, axis)
    elif size != old:
      x = jnp.take(x, np.arange(size) * old // size, axis)
  return x
