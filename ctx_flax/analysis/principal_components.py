"""Maps of vectors by their two principal components, and how their distances follow something else."""

import numpy as np

ROUNDING = 1e-6  # spread below this share of the vectors' size is none


def principal_components(vectors):
  """The first two principal components of vectors (m, d).

  Of each direction the sign is such that its largest loading is positive, so that the map is always the same.
  Where d is larger than m the m x m products of the vectors serve instead of the vectors: kernel deltas have
  tens of thousands of numbers.

  Returns:
    (coordinates float64 (m, 2), shares of the variance (2,)); zeros where all vectors are the same but for
    rounding, and for a component that there is not.
  """
  vectors = np.asarray(vectors, np.float64)
  m, d = vectors.shape
  centred = vectors - vectors.mean(0)
  coordinates, shares = np.zeros((m, 2)), np.zeros(2)
  if float(np.linalg.norm(centred)) <= ROUNDING * max(float(np.linalg.norm(vectors)), 1e-300):
    return coordinates, shares
  if d > m:
    values, left = np.linalg.eigh(centred @ centred.T)
    sizes, left = np.sqrt(np.maximum(values[::-1], 0)), left[:, ::-1]
  else:
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
  for i in range(min(2, len(sizes))):
    if sizes[i] <= ROUNDING * sizes[0]:
      break
    loadings = left[:, i] @ centred
    sign = np.sign(loadings[np.abs(loadings).argmax()])
    coordinates[:, i] = sign * left[:, i] * sizes[i]
    shares[i] = sizes[i] ** 2 / (sizes**2).sum()
  return coordinates, shares


def distances_by_class(vectors, labels, considered):
  """Whether vectors of one class are closer, and whether those are that share considered classes.

  Args:
    vectors: (m, d).
    labels: int (m,).
    considered: bool (m, n), the classes each image's stage considered.

  Returns:
    {'all_images': mean distance between two images, 'same_class': of a class, 'other_class': of two classes,
    'correlation': over pairs of images, of the distance and the share of considered classes that both have
    (Jaccard index); nan where there is no such pair or nothing varies, 'same_considered': whether all images
    consider the same classes}.
  """
  vectors = np.asarray(vectors, np.float64)
  vectors = vectors - vectors.mean(0)  # smaller numbers, smaller differences of their squares
  squares = (vectors**2).sum(1)
  gram = vectors @ vectors.T
  distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * gram, 0))
  sets = np.asarray(considered, np.float64)
  both = sets @ sets.T
  sizes = sets.sum(1)
  jaccard = both / np.maximum(sizes[:, None] + sizes[None] - both, 1)
  pairs = np.triu_indices(len(vectors), 1)
  far, alike = distances[pairs], jaccard[pairs]
  same = (labels[:, None] == labels[None])[pairs]
  mean = lambda values: float(values.mean()) if len(values) else float('nan')
  # Differences of large sums of squares: what is left of equal vectors is rounding.
  varies = len(far) > 1 and far.std() > ROUNDING * np.sqrt(squares.max()) and alike.std() > ROUNDING
  return {
    'all_images': mean(far),
    'same_class': mean(far[same]),
    'other_class': mean(far[~same]),
    'correlation': float(np.corrcoef(far, alike)[0, 1]) if varies else float('nan'),
    'same_considered': all_same(considered),
  }


def all_same(considered):
  """Whether all images consider the same classes: bool (m, n)."""
  considered = np.asarray(considered, bool)
  return bool((considered == considered[:1]).all())
