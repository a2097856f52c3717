"""The losses and metrics once more, slow and obvious: loops over images and classes, float64."""

import math

import numpy as np


def log_softmax(scores, classes):
  """{class: log probability} between the given classes of one image."""
  largest = max(scores[n] for n in classes)
  total = sum(math.exp(scores[n] - largest) for n in classes)
  return {n: scores[n] - largest - math.log(total) for n in classes}


def target(classes, a, b, lam, smoothing):
  """{class: target} of one image with labels a (weight lam >= 0.5) and b, or None where a was dropped."""
  if a not in classes:
    return None
  w = lam if b in classes else 1.0
  values = {n: smoothing / len(classes) for n in classes}
  values[a] += (1 - smoothing) * w
  if b in classes:
    values[b] += (1 - smoothing) * (1 - w)
  return values


def stage_loss(scores, considered, labels, selection, smoothing, other_labels, lam, weights):
  """(sum, count) of one stage."""
  scores = np.asarray(scores, np.float64)
  total, count = 0.0, 0
  for i, (a, b, share) in enumerate(zip(labels, other_labels, lam, strict=True)):
    if weights[i] == 0:
      continue
    if share < 0.5:
      a, b, share = b, a, 1 - share
    classes = [n for n in range(scores.shape[1]) if selection == 'rerank' or considered[i, n]]
    wanted = target(classes, a, b, share, smoothing)
    if wanted is None:
      continue
    log_probabilities = log_softmax(scores[i], classes)
    total -= sum(wanted[n] * log_probabilities[n] for n in classes)
    count += 1
  return total, count


def place_of_label(scores, classes, label):
  """Position of the label among the classes sorted by score, ties by index; None where it was dropped."""
  if label not in classes:
    return None
  return sorted(classes, key=lambda n: (-float(scores[n]), n)).index(label)
