"""Draws an emoji on a background: size, place, rotation, colour and blur at random, never mirrored."""

import math

import numpy as np

from ctx_flax.data import photographs
from ctx_flax.data.patches import PHOTOGRAPHS

SCALE = (0.6, 1.0)  # side of the emoji over the side of the image, uniform
ROTATE = 15.0  # degrees either way
SHIFT = 0.1  # of the image's side, either way, in y and in x
GAIN = (0.8, 1.25)  # of each channel of the emoji; red and blue hearts are classes, so the hue stays
OFFSET = 20.0  # of all its channels, in grey values, either way
BLUR = 0.5  # share of blurred images
SIGMA = (0.3, 0.8)  # of the blur, in pixels of an image of 32 x 32
BACKGROUNDS = (0.3, 0.6)  # one colour below the first share, a gradient below the second, else a photograph
ZOOM = (1.0, 4.0)  # pixels of a photograph for a pixel of an image of 32 x 32


def draw(emoji: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
  """An image of an emoji.

  Args:
    emoji: uint8 (s, s, 4), RGB times alpha, and alpha.
    size: of the image.
    rng: the source of everything random.

  Returns:
    uint8 (size, size, 3).
  """
  import cv2

  # In one call, which takes longer than the numbers themselves.
  scale, angle, dy, dx, brightness, blur, sigma, *gains = rng.random(10).tolist()
  matrix = _placement(emoji.shape[0], size, _within(SCALE, scale), 2 * angle - 1, 2 * dy - 1, 2 * dx - 1)
  placed = cv2.warpAffine(emoji, matrix, (size, size), flags=cv2.INTER_LINEAR)
  if blur < BLUR:
    placed = cv2.GaussianBlur(placed, (0, 0), _within(SIGMA, sigma) * size / 32)
  alpha = placed[..., 3:].astype(np.float32) * np.float32(1 / 255)
  gain = np.array([GAIN[0] * (GAIN[1] / GAIN[0]) ** share for share in gains], np.float32)
  front = placed[..., :3] * gain + alpha * np.float32(OFFSET * (2 * brightness - 1))
  front += background(size, rng) * (1 - alpha)
  return np.clip(front, 0, 255).astype(np.uint8)


def background(size: int, rng: np.random.Generator) -> np.ndarray:
  """float32 (size, size, 3) in 0..255, or a colour (1, 1, 3): plain, a gradient, or part of a photograph."""
  import cv2

  kind, angle, *shares = rng.random(8).tolist()
  if kind >= BACKGROUNDS[1]:
    return _photograph(size, angle, *shares[:4]).astype(np.float32)
  first, second = np.array(shares, np.float32).reshape(2, 1, 1, 3) * 255
  if kind < BACKGROUNDS[0]:
    return first
  dy, dx = math.sin(2 * math.pi * angle), math.cos(2 * math.pi * angle)
  # From 0 to 1 between the two corners that are farthest apart along (dy, dx).
  reach = (abs(dy) + abs(dx)) / 2
  corners = [[0.5 - (dy + dx) / 4 / reach, 0.5 + (dx - dy) / 4 / reach]]
  corners += [[0.5 + (dy - dx) / 4 / reach, 0.5 + (dy + dx) / 4 / reach]]
  ramp = cv2.resize(np.array(corners, np.float32), (size, size), interpolation=cv2.INTER_LINEAR_EXACT)
  return first + (second - first) * ramp[..., None]


def _photograph(size, which, top, left, zoom, brightness):
  """A square crop of a photograph, resized."""
  import cv2

  image = photographs.shipped(*list(PHOTOGRAPHS.values())[int(which * len(PHOTOGRAPHS))])
  h, w, _ = image.shape
  side = min(h, w, round(_within(ZOOM, zoom) * 32))
  y, x = int(top * (h - side + 1)), int(left * (w - side + 1))
  crop = image[y : y + side, x : x + side]
  crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
  return crop * np.float32(_within((0.6, 1.2), brightness))


def _placement(side, size, scale, turn, down, right):
  """The 2x3 matrix from the pixels of an emoji to those of an image."""
  factor = scale * size / side
  angle = math.radians(turn * ROTATE)
  cos, sin = math.cos(angle) * factor, math.sin(angle) * factor
  # Pixel centres lie on whole numbers, so that the middles are at (side - 1) / 2 and (size - 1) / 2.
  middle = (side - 1) / 2
  y, x = (size - 1) / 2 + down * SHIFT * size, (size - 1) / 2 + right * SHIFT * size
  return np.array([[cos, -sin, x - middle * (cos - sin)], [sin, cos, y - middle * (sin + cos)]])


def _within(limits, share):
  return limits[0] + (limits[1] - limits[0]) * share
