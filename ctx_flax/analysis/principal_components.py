"""Maps of vectors by their two principal components, and how their distances follow something else."""

import numpy as np

ROUNDING = 1e-6  # spread below this share of the vectors' size is none


def principal_components(vectors):
  """The first two principal components of vectors (m, d).

  Of each direction the sign is such that its largest loading is positive, so that the map is always the same.

  Returns:
    (coordinates float64 (m, 2), shares of the variance (2,)); zeros where all vectors are the same but for
    rounding.
  """
  vectors = np.asarray(vectors, np.float64)
  m = len(vectors)
  centred = vectors - vectors.mean(0)
  coordinates, shares = np.zeros((m, 2)), np.zeros(2)
  if float(np.linalg.norm(centred)) <= ROUNDING * max(float(np.linalg.norm(vectors)), 1e-300):
    return coordinates, shares
  left, sizes, right = np.linalg.svd(centred, full_matrices=False)
  for i in range(min(2, len(sizes))):
    sign = np.sign(right[i, np.abs(right[i]).argmax()])
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
    {'same_class': mean distance between two images of a class, 'other_class': of two classes, 'correlation':
    over pairs of images, of the distance and the share of considered classes that both have (Jaccard index)};
    nan where there is no such pair or nothing varies.
  """
  vectors = np.asarray(vectors, np.float64)
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
  correlation = float(np.corrcoef(far, alike)[0, 1]) if varies else float('nan')
  return {'same_class': mean(far[same]), 'other_class': mean(far[~same]), 'correlation': correlation}
