"""The temporal shift of TSM (Lin et al., ICCV 2019): the frames of a clip exchange channels.

Axes: b clips, t frames, h w grid, c channels.
"""

import jax
import jax.numpy as jnp


def temporal_shift(x: jax.Array, *, fold_div: int = 8) -> jax.Array:
  """Every frame takes some channels from the next frame and as many from the one before.

  With n = c // fold_div, the first n channels come from frame t + 1 and the next n from frame t - 1; the rest
  stays. Beyond either end of the clip there are zeros. A clip of one frame is no special case: its first 2 n
  channels become zero.

  Args:
    x: (b, t, h, w, c), any dtype.
    fold_div: the part of the channels that goes each way, as a divisor; at least 2.

  Returns:
    (b, t, h, w, c), of the dtype of x.

  Raises:
    ValueError: x has another rank, or fold_div is below 2; the message names it.
  """
  if jnp.ndim(x) != 5:
    raise ValueError(f'x has shape {jnp.shape(x)}; expected (b, t, h, w, c)')
  if fold_div < 2:
    raise ValueError(f'fold_div={fold_div}: expected at least 2, as channels go both ways')
  n = x.shape[-1] // fold_div
  # Pads and slices alone, which XLA fuses with whatever reads the result.
  along_time = lambda before, after: ((0, 0), (before, after), (0, 0), (0, 0), (0, 0))
  from_next = jnp.pad(x[:, 1:, ..., :n], along_time(0, 1))
  from_last = jnp.pad(x[:, :-1, ..., n : 2 * n], along_time(1, 0))
  return jnp.concatenate([from_next, from_last, x[..., 2 * n :]], -1)
