"""Gradients of the one-step contextual depthwise convolution on accelerators, in few and long kernels.

What bounds each gradient there differs, so each has a loop of its own:

- the image's is one scatter of all taps for as many images as stay in the L2 cache (a scatter that misses it
  takes 1.6 times as long);
- those of the points and of the mask are sums over the channels, computed from the same pixels;
- the kernel's sums over positions are the forward pass with the roles of taps and positions exchanged: a few
  positions in a turn, added onto what all taps have gathered. As a reduction it takes 2.8 times as long.

Nothing of size b * u * v * k * c is kept: XLA makes one kernel of a gather and the sum or scatter after it.
docs/gpu.md has the times and the memory. Axes: b images, h w input grid, u v output grid, k taps, c channels,
p positions (u * v), s strips of positions.
"""

import jax
import jax.numpy as jnp

from ctx_flax.ops import in_turn
from ctx_flax.ops.bilinear import CORNERS, corner_weight, corners
from ctx_flax.ops.taps import flatten, sample_tap

Arrays = tuple[jax.Array, ...]
CACHE_BYTES = 10_000_000  # of an image gradient in float32; an H200 has 50 MB of L2, and 40 MB are too many
POSITIONS_IN_A_TURN = 7  # with 14, XLA keeps what it has gathered: 1 GB
POSITIONS_PER_STRIP = 196  # strips are summed side by side, so that small images fill the card too


def depthwise(
  kernel: jax.Array, x: jax.Array, delta: jax.Array, points: jax.Array, mask: jax.Array, dy: jax.Array
) -> Arrays:
  """Gradients of x, delta, points and mask.

  Args:
    kernel: (k, c), shared by all images.
    x: (b, h, w, c).
    delta: (b, k, c), added to the kernel of each image.
    points: (k, b, u, v, 2), mask: (k, b, u, v), dy: (b, u, v, c), all in the dtype that sums are kept in.
  """
  b, h, w, c = x.shape
  images = in_turn.largest_divisor(b, CACHE_BYTES // (h * w * c * dy.dtype.itemsize))
  axes = 0, 0, 1, 1, 0
  arrays = x, delta, points, mask, dy
  if images == b:
    dx, dpoints, dmask = _sampling_gradients(kernel, *arrays)
  else:
    parts = tuple(in_turn.split(array, images, axis) for array, axis in zip(arrays, axes, strict=True))
    gradients = jax.lax.map(lambda own: _sampling_gradients(kernel, *own), parts)
    dx, dpoints, dmask = (in_turn.join(array, axis) for array, axis in zip(gradients, (0, 1, 1), strict=True))
  return dx, _kernel_gradient(x, points, mask, dy), dpoints, dmask


def _sampling_gradients(
  kernel: jax.Array, x: jax.Array, delta: jax.Array, points: jax.Array, mask: jax.Array, dy: jax.Array
) -> Arrays:
  """Gradients of x, points and mask."""
  b, h, w, c = x.shape
  k = len(points)
  index, fraction, inside = corners(points, h, w)
  weight = {corner: corner_weight(fraction, inside, corner) for corner in CORNERS}
  first = (jnp.arange(b, dtype=jnp.int32) * (h * w)).reshape(1, b, 1, 1)
  rows = jnp.stack([index[corner] + first for corner in CORNERS], 1).reshape(k, 4, b, -1)
  share = jnp.stack([weight[corner] * mask for corner in CORNERS], 1).reshape(k, 4, b, -1)
  # Else they are computed again for every channel.
  rows, share = jax.lax.optimization_barrier((rows, share))

  pixels, dy = x.reshape(b * h * w, c), dy.reshape(b, -1, c)
  own = jnp.swapaxes(kernel[None] + delta, 0, 1)[:, None, :, None]  # (k, 1, b, 1, c)
  cotangent = dy[None, None]
  picked = pixels.at[rows].get(mode='promise_in_bounds').astype(dy.dtype)  # (k, 4, b, p, c), never in memory
  # The products in two orders: if XLA could share one it would keep it.
  along = jnp.sum((picked * own) * cotangent, -1).reshape(k, 4, *points.shape[1:4])
  dx = jnp.zeros(pixels.shape, dy.dtype)
  dx = dx.at[rows].add((share[..., None] * own) * cotangent, mode='promise_in_bounds')

  dmask = jnp.zeros_like(mask)
  slopes = [jnp.zeros_like(mask), jnp.zeros_like(mask)]
  for number, (i, j) in enumerate(CORNERS):
    dmask += weight[i, j] * along[:, number]
    visible = along[:, number] * inside[0][i] * inside[1][j]
    slopes[0] += (1 if i else -1) * (fraction[1] if j else 1 - fraction[1]) * visible
    slopes[1] += (1 if j else -1) * (fraction[0] if i else 1 - fraction[0]) * visible
  return dx.reshape(x.shape).astype(x.dtype), mask[..., None] * jnp.stack(slopes, -1), dmask


def _kernel_gradient(x: jax.Array, points: jax.Array, mask: jax.Array, dy: jax.Array) -> jax.Array:
  """(b, k, c): what each image's own kernel has for a gradient."""
  b, _, _, c = x.shape
  k, p = len(points), dy.shape[1] * dy.shape[2]
  pixels = flatten(x)
  length = in_turn.largest_divisor(p, POSITIONS_PER_STRIP)

  def positions_first(array: jax.Array, *rest: int) -> jax.Array:
    """(k, b, u, v, ...) -> (length, b, s, k, ...)."""
    array = array.reshape(k, b, p // length, length, *rest)
    return jnp.moveaxis(array, (3, 1, 2, 0), (0, 1, 2, 3))

  cotangents = jnp.moveaxis(dy.reshape(b, p // length, length, c), 2, 0)

  def add_position(total: jax.Array, position: Arrays) -> tuple[jax.Array, None]:
    points, mask, dy = position  # (b, s, k, 2), (b, s, k), (b, s, c)
    return total + sample_tap(pixels, points, mask, x.shape) * dy[:, :, None], None

  total = jnp.zeros((b, p // length, k, c), dy.dtype)
  positions = positions_first(points, 2), positions_first(mask), cotangents
  at_once = in_turn.largest_divisor(length, POSITIONS_IN_A_TURN)
  return jnp.sum(jax.lax.scan(add_position, total, positions, unroll=at_once)[0], 1)
