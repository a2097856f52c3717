"""Are the positions that a map marks those that the network uses? Deletion and insertion.

Deletion removes the most salient pixels first: the probability of the class should fall fast. Insertion
restores the most salient pixels first in a blurred image: it should rise fast. The areas below both curves
say it in one number, and mean nothing without those of a random order beside them.
Source: Petsiuk et al., RISE, https://arxiv.org/abs/1806.07421.
"""

import time

import jax
import numpy as np

from ctx_flax.training.logging import Progress

ORDERS = 5  # random ones that are averaged
BLUR = 1 / 8  # standard deviation of the blur, of the image's side
KINDS = 'deletion', 'insertion'


def deletion_insertion(probability, image, saliency, steps, rng):
  """The curves of one image and one map.

  Args:
    probability: function of images (steps + 1, s, s, 3) -> probability of the class in each, (steps + 1,).
    image: float (s, s, 3), or a clip (t, s, s, 3), whose pixels are those of all frames; normalised: 0 is the
      data's mean, which stands for a removed pixel.
    saliency: float (s, s) or (t, s, s); equal values in the order of the pixels.
    steps: how many equal parts of the pixels are removed or restored one after the other.
    rng: a np.random.Generator, of the random orders.

  Returns:
    {'deletion': {'map': (steps + 1,), 'random': the mean over ORDERS orders}, 'insertion': the same}: the
    probability when the shares 0, 1 / steps, ..., 1 of the pixels are removed or restored.
  """
  order = np.argsort(-saliency.ravel(), kind='stable')
  orders = [order] + [rng.permutation(saliency.size) for _ in range(ORDERS)]
  start = {'deletion': image, 'insertion': blurred(image)}
  end = {'deletion': np.zeros_like(image), 'insertion': image}
  found = {}
  for kind in KINDS:
    curves = []
    for order in orders:
      place = np.empty(order.size, np.int64)
      place[order] = np.arange(order.size)
      limits = thresholds(saliency.size, steps).reshape(-1, *[1] * saliency.ndim)
      changed = place.reshape(saliency.shape)[None] < limits
      images = np.where(changed[..., None], end[kind][None], start[kind][None])
      curves.append(np.asarray(probability(images.astype(np.float32))))
    found[kind] = {'map': curves[0], 'random': np.mean(curves[1:], axis=0)}
  return found


def curves_of(run, arrays, classes, saliency, steps, seed):
  """What `deletion_insertion` returns for each image, by a Run's probability of the image's class.

  Args:
    run: a Run.
    arrays: float32 (m, s, s, 3) or (m, t, s, s, 3), normalised.
    classes: int (m,).
    saliency: float (m, s, s) or (m, t, s, s).
    steps: see `deletion_insertion`.
    seed: of the random orders, the same for all networks that are compared.
  """
  rng = np.random.default_rng(seed)
  found = []
  began = time.monotonic()
  with Progress(len(arrays), 0) as progress:
    for i, number in enumerate(classes):
      probability = lambda images, c=number: jax.nn.softmax(run.apply(run.variables, images)[0])[:, c]
      found.append(deletion_insertion(probability, arrays[i], saliency[i], steps, rng))
      left = (time.monotonic() - began) / (i + 1) * (len(arrays) - i - 1)
      progress.update(i + 1, f'deletion and insertion, {run.config.model.name}', left)
  return found


def areas_of(curves):
  """The areas below what `curves_of` returned: {kind: {'map' or 'random': (m,)}}."""
  return {
    kind: {what: np.array([area(one[kind][what]) for one in curves]) for what in ('map', 'random')}
    for kind in KINDS
  }


def thresholds(pixels, steps):
  """How many pixels are changed at each of the steps + 1 points."""
  return np.rint(np.arange(steps + 1) * pixels / steps).astype(np.int64)


def area(curve):
  """The area below a curve over the share 0..1 of the pixels, by trapezoids."""
  return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def blurred(image):
  """An image (s, s, 3), or every frame of a clip, without its details."""
  import cv2

  if image.ndim == 4:
    return np.stack([blurred(frame) for frame in image])
  return cv2.GaussianBlur(
    np.asarray(image, np.float32), (0, 0), BLUR * image.shape[0], borderType=cv2.BORDER_REFLECT_101
  )
