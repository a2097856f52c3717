"""Where the taps of contextual convolutions read an image, in its pixels.

Axes: b images, u v output grid, k taps (row-major). Points and offsets have (dy, dx) last. Pixel p of a map
that is S times smaller than the image is centred at p S + first in the image's pixels; a network's
`first_centre` says where its first pixel is.
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from ctx_flax.ops.geometry import sampling_points


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How a contextual block samples some images.

  Attributes:
    block: 'stage.block'.
    points: (b, u, v, k, 2), where the taps read, in image pixels.
    regular: (u, v, k, 2), where they would without offsets.
    mask: (b, u, v, k), the weights of what is read.
    scale: image pixels per pixel of the block's input.
  """

  block: str
  points: Any
  regular: Any
  mask: Any
  scale: float


def sampling_of(model, out, block, side):
  """The Sampling of a block.

  Args:
    model: the network.
    out: its second output for some images.
    block: one of `blocks_of(out)`.
    side: of the images, pixels.
  """
  offsets, mask = out['offsets'][block], out['mask'][block]
  stage, number = map(int, block.split('.'))
  u = offsets.shape[1]
  before = out[f'stage{stage - 1}'].shape[1] if model.halves(stage, number) else u
  first = model.first_centre(side / before)
  return sample(offsets, mask, before, side, block, first)


def sample(offsets, mask, input_side, side, block='', first=None):
  """The Sampling of offsets (b, u, v, k, 2) and mask (b, u, v, k) on a map of input_side pixels.

  `first` is the network's `first_centre`, by default that of a ConvNeXt.
  """
  offsets, mask = np.asarray(offsets, np.float32), np.asarray(mask, np.float32)
  u, k = offsets.shape[1], offsets.shape[3]
  size = round(k**0.5)
  stride, pad, scale = -(-input_side // u), size // 2, side / input_side
  place = lambda shifts: np.asarray(
    sampling_points(shifts, (size, size), (stride, stride), ((pad, pad), (pad, pad)), (1, 1))
  )
  first = (scale - 1) / 2 if first is None else first
  to_image = lambda points: points * scale + first
  regular = to_image(place(np.zeros_like(offsets[:1]))[0])
  return Sampling(block, to_image(place(offsets)), regular, mask, scale)


def middle_frame(out, frames):
  """What a network says about the middle frames of clips, without their axis t; of images all of it."""
  if frames == 1:
    return out
  pick = lambda value: value[:, frames // 2]
  of_frames = ('stage', 'pre_logits', 'offsets', 'mask', 'kernel_delta')

  def picked(name, value):
    each_frame = name.startswith('context') and value.ndim == 3  # where frames have contexts of their own
    return jax.tree.map(pick, value) if name.startswith(of_frames) or each_frame else value

  return {name: picked(name, value) for name, value in out.items()}


def blocks_of(out):
  """The names of the contextual blocks, in order."""
  return sorted(out['offsets'], key=lambda name: tuple(map(int, name.split('.'))))


def mean_offsets(sampling):
  """The mean of a position's taps, weighted by the mask: (b, u, v, 2) in image pixels."""
  weights = sampling.mask[..., None]
  shifts = sampling.points - sampling.regular[None]
  return (weights * shifts).sum(3) / np.maximum(weights.sum(3), 1e-12)


def position_of(fractions, sampling):
  """(u, v) of the output position at fractions (y, x), 0..1, of the image's sides."""
  sides = sampling.regular.shape[:2]
  return tuple(min(int(f * side), side - 1) for f, side in zip(fractions, sides, strict=True))
