"""Sets of classes to make contexts of: those of another image, confused and random ones.

Axes: m images, n classes. In NumPy, with every draw fixed by a seed.
"""

import numpy as np


def other_images(labels, seed):
  """The number of another image for each image: a permutation (m,) without fixed points.

  The other image is of another class, for all images unless a class has more than half of them.

  Args:
    labels: int (m,), of two images or more.
    seed: of the draw.
  """
  rng = np.random.default_rng(seed)
  other = rng.permutation(len(labels))
  for i in np.flatnonzero(labels[other] == labels):
    if labels[other[i]] == labels[i]:  # it may have been exchanged already
      of_others = np.flatnonzero((labels[other] != labels[i]) & (labels != labels[other[i]]))
      if len(of_others):
        _exchange(other, i, rng.choice(of_others))
  for i in np.flatnonzero(other == np.arange(len(labels))):
    if other[i] == i:
      # Preferably with an image of its class, whose own partner then stays one of another class.
      alike = np.flatnonzero((labels == labels[i]) & (np.arange(len(labels)) != i))
      _exchange(other, i, rng.choice(alike) if len(alike) else (i + 1) % len(labels))
  return other


def confused_classes(probabilities, count):
  """For each class, itself and the `count` - 1 others that it is confused with most: bool (n, n).

  Args:
    probabilities: (n, n), [c, k] how probable images of class c are of class k, or their sum over images.
    count: 1 to n.
  """
  n = len(probabilities)
  first = np.where(np.eye(n, dtype=bool), np.inf, probabilities)
  order = np.argsort(-first, axis=1, kind='stable')  # equal ones by their numbers
  sets = np.zeros((n, n), bool)
  np.put_along_axis(sets, order[:, :count], True, axis=1)
  return sets


def random_classes(index, label, counts, n, seed):
  """The true class of an image and random others for each stage: bool (stages, n).

  The set of a later stage is part of the sets before it, as in a network that reduces.

  Args:
    index: number of the image, which has a draw of its own.
    label: its class.
    counts: how many classes each stage has, not increasing.
    n: how many there are.
    seed: of all draws.
  """
  others = np.random.default_rng((seed, index)).permutation(n - 1)
  order = np.concatenate([[label], others + (others >= label)])
  sets = np.zeros((len(counts), n), bool)
  for chosen, count in zip(sets, counts, strict=True):
    chosen[order[:count]] = True
  return sets


def shared_classes(times, images, count):
  """The share of classes that the sets of two images have in common, mean over all pairs.

  Args:
    times: int (n,), the number of sets that have each class.
    images: m, how many sets there are.
    count: classes of each set.
  """
  times = times.astype(np.float64)
  return float((times * (times - 1)).sum() / (images * (images - 1) * count))


def _exchange(permutation, i, j):
  permutation[i], permutation[j] = permutation[j], permutation[i]
