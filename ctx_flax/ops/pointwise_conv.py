"""A 1x1 convolution, by the code that is fastest on a platform.

Axes: b images, h w grid, c in, d out.
"""

import jax


def pointwise_conv(x: jax.Array, kernel: jax.Array, *, strides: int = 1) -> jax.Array:
  """Every strides-th pixel of x times one matrix.

  On CPUs it is a matrix product: XLA's convolution takes two to five times as long there for its gradients.
  GPUs have their own kernels.

  Args:
    x: (b, h, w, c).
    kernel: (1, 1, c, d).
    strides: in both directions.

  Returns:
    (b, ceil(h / strides), ceil(w / strides), d).
  """

  def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x[:, ::strides, ::strides] @ kernel[0, 0]

  def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
      x, kernel, (strides, strides), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  return jax.lax.platform_dependent(x, kernel, cpu=product, default=convolution)
