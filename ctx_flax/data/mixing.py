"""mixup (https://arxiv.org/abs/1710.09412) and cutmix (https://arxiv.org/abs/1905.04899) of a batch.

One of the two, one share and one rectangle for a whole batch, and so for all frames of a clip. Neighbours
2j and 2j + 1 are mixed with each other: batches are shuffled, so this is as random as any pairing, and a
process that holds an even part of a batch mixes it as the whole would have been.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np


def mix_of(
  data: Any,
) -> Callable[[dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray]] | None:
  """`mix` with the settings of config.data, None where both are off."""
  if not (data.mixup or data.cutmix):
    return None
  return functools.partial(
    mix, mixup=data.mixup, cutmix=data.cutmix, probability=data.mix_probability, switch=data.mix_switch
  )


def mix(
  batch: dict[str, np.ndarray],
  rng: np.random.Generator,
  *,
  mixup: float,
  cutmix: float,
  probability: float,
  switch: float,
) -> dict[str, np.ndarray]:
  """Mixes the images of a batch, in place, and adds what the losses need to know.

  Args:
    batch: 'image' float32 (b, h, w, c), or of clips (b, t, h, w, c), b even, and 'label' int (b,).
    rng: draws the same numbers whatever b is.
    mixup, cutmix: alpha of the Beta(alpha, alpha) distribution of the shares; 0 is off.
    probability: of mixing at all.
    switch: probability of cutmix where both are on.

  Returns:
    The batch with 'other_label' int32 (b,) and 'lam' float32 (b,), the share of 'label' in each image: 1
    where nothing was mixed.

  Raises:
    ValueError: for an odd number of images.
  """
  images, labels = batch['image'], batch['label']
  b, *_, h, w, c = images.shape
  if b % 2:
    raise ValueError(f'images are mixed in pairs, but a process has {b} of a batch: its part must be even')
  mixed, with_cutmix = rng.random() < probability, mixup == 0 or (cutmix > 0 and rng.random() < switch)
  lam, box = 1.0, None
  if mixed:
    alpha = cutmix if with_cutmix else mixup
    lam = rng.beta(alpha, alpha)
    if with_cutmix:
      box = rectangle(h, w, rng, lam)
      top, left, bottom, right = box
      lam = 1 - (bottom - top) * (right - left) / (h * w)
  pairs = images.reshape(b // 2, 2, -1, h, w, c)
  if box is not None:
    part = pairs[..., top:bottom, left:right, :]
    part[:] = part[:, ::-1].copy()
  elif lam < 1:
    for first, second in pairs:
      both = (first + second) * np.float32(1 - lam)
      for image in (first, second):
        image *= np.float32(2 * lam - 1)
        image += both
  return batch | {
    'other_label': labels.reshape(-1, 2)[:, ::-1].reshape(-1),
    'lam': np.full(b, lam, np.float32),
  }


def rectangle(height: int, width: int, rng: np.random.Generator, lam: float) -> tuple[int, int, int, int]:
  """(top, left, bottom, right) of a share 1 - lam of the image, centred anywhere, cut off at the border."""
  side = math.sqrt(1 - lam)
  h, w = int(height * side), int(width * side)
  y, x = int(rng.integers(height)), int(rng.integers(width))
  top, left = max(y - h // 2, 0), max(x - w // 2, 0)
  return top, left, min(y + h // 2, height), min(x + w // 2, width)
