"""How the images of a batch go into a detector."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ctx_flax.training.task import Batch

PADDING = 32  # images are padded to a multiple of it


def network_inputs(
  batch: Batch, mean: Sequence[float], std: Sequence[float]
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The images that a detector takes, and the keywords that say how far each reaches.

  Args:
    batch: 'image' (b, h, w, 3), of any values beyond the image itself, uint8, or float and normalised
      already; 'image_hw' int (b, 2).
    mean, std: of the channels, of pixels in 0..1; one value serves all three.

  Returns:
    images: float32 (b, h, w, 3), normalised, 0 beyond the image itself.
    extents: {'valid_hw': image_hw, 'padded_hw': these as multiples of PADDING}.
  """
  images, image_hw = batch['image'], batch['image_hw']
  _, h, w, _ = images.shape
  less, scale = (jnp.asarray(value, jnp.float32).reshape(1, 1, 1, -1) for value in (mean, std))
  rows = jnp.arange(h)[None, :] < image_hw[:, :1]
  columns = jnp.arange(w)[None, :] < image_hw[:, 1:]
  inside = (rows[:, :, None] & columns[:, None, :])[..., None]
  normal = (images.astype(jnp.float32) / 255 - less) / scale if images.dtype == jnp.uint8 else images
  padded_hw = -(-image_hw // PADDING) * PADDING
  return jnp.where(inside, normal, 0.0), {'valid_hw': image_hw, 'padded_hw': padded_hw}
