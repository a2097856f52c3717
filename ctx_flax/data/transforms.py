"""What happens to one image: a random affine map when training, then normalisation. NumPy and Pillow only."""

import math

import numpy as np
from PIL import Image


def affine(image, angle=0.0, shift=(0.0, 0.0), scale=1.0):
  """Turns, scales and shifts an image about its centre; bilinear between pixels, zero outside.

  Args:
    image: uint8 (h, w, c), c 1 or 3.
    angle: degrees, counter-clockwise as seen.
    shift: (dy, dx) in pixels, down and to the right, after turning and scaling.
    scale: factor of the size; above 1 enlarges.

  Returns:
    uint8 (h, w, c).
  """
  h, w, c = image.shape
  dy, dx = shift
  cos, sin = math.cos(math.radians(angle)) / scale, math.sin(math.radians(angle)) / scale
  # Pillow asks for the way back, from a pixel (x, y) of the result to one of the source. It measures from
  # the image's corner, so that the centre is at half the size and needs no extra half pixel.
  cy, cx = h / 2, w / 2
  back = (
    *(cos, -sin, cx - cos * (cx + dx) + sin * (cy + dy)),
    *(sin, cos, cy - sin * (cx + dx) - cos * (cy + dy)),
  )
  source = Image.fromarray(image[..., 0] if c == 1 else image)
  result = source.transform((w, h), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
  return np.asarray(result).reshape(h, w, c)


def random_affine(image, rng, *, rotate, shift, scale):
  """`affine` with an angle within +-rotate degrees, a shift within +-shift * side and a factor from
  1 / (1 + scale) to 1 + scale, each uniform (the factor in its logarithm). All zero changes nothing."""
  h, w, _ = image.shape
  # Always four draws: setting one range to zero leaves the others' values as they were.
  angle, dy, dx, factor = rng.uniform(-1.0, 1.0, size=4)
  if not (rotate or shift or scale):
    return image
  return affine(image, angle * rotate, (dy * shift * h, dx * shift * w), math.exp(factor * math.log1p(scale)))


def normalise(image, mean, std):
  """uint8 (h, w, 1 or 3) -> float32 (h, w, 3), (pixel / 255 - mean) / std per channel.

  Gray images are repeated to three channels, so that every network takes every image.
  mean, std: one value for all channels, or one for each of the three.
  """
  scaled = (image.astype(np.float32) / np.float32(255) - np.float32(mean)) / np.float32(std)
  return np.broadcast_to(scaled, (*image.shape[:2], 3))
