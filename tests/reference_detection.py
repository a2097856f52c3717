"""The operations of detectors once more: slow, obvious float64 NumPy, one Python loop per box, bin and
sample.

Written from the definitions alone and sharing nothing with ctx_flax.ops. Boxes are (x1, y1, x2, y2) in
pixels; the centres of a map's cells lie on integers.
"""

import itertools
import math

import numpy as np


def overlap_and_union(a, b):
  w = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
  h = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
  areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
  return w * h, sum(areas) - w * h


def box_iou(a, b):
  """a (n, 4), b (m, 4) -> (n, m); NaN for two boxes without area."""
  iou = np.full((len(a), len(b)), np.nan)
  for i, j in itertools.product(range(len(a)), range(len(b))):
    overlap, union = overlap_and_union(a[i], b[j])
    if union != 0:
      iou[i, j] = overlap / union
  return iou


def generalised_box_iou(a, b):
  """Of pairs (n, 4) with areas: IoU minus the part of the common hull that neither covers."""
  values = []
  for one, other in zip(a, b, strict=True):
    overlap, union = overlap_and_union(one, other)
    hull = (max(one[2], other[2]) - min(one[0], other[0])) * (max(one[3], other[3]) - min(one[1], other[1]))
    values.append(overlap / union - (hull - union) / hull)
  return np.array(values)


def nms(boxes, scores, threshold, groups=None, valid=None):
  """The indices of the kept boxes, by falling score: one box after the other, as greedy as can be."""
  n = len(boxes)
  groups = np.zeros(n) if groups is None else groups
  valid = np.ones(n, bool) if valid is None else valid
  kept = []
  for i in sorted((i for i in range(n) if valid[i] and not math.isnan(scores[i])), key=lambda i: -scores[i]):
    iou = box_iou(boxes[i : i + 1], boxes)[0]
    if not any(iou[j] > threshold for j in kept if groups[j] == groups[i]):
      kept.append(i)
  return kept


def multiclass_nms(boxes, scores, score_threshold, threshold, limit):
  """boxes (n, 4) or (n, m, 4), scores (n, m) -> [(row, label), ...] by falling score."""
  n, m = scores.shape
  pairs = [pair for pair in itertools.product(range(n), range(m)) if scores[pair] > score_threshold]
  boxes = np.array([boxes[row] if boxes.ndim == 2 else boxes[row, label] for row, label in pairs])
  kept = nms(boxes, [scores[pair] for pair in pairs], threshold, [label for _, label in pairs])
  return [pairs[i] for i in kept][:limit]


def samples(low, high, bins, sampling_ratio):
  """The samples of each bin between two places along an axis: [[position, ...], ...], all lists as long."""
  length = (high - low) / bins
  number = sampling_ratio or max(math.ceil(length), 0)
  return [[low + (i + (k + 0.5) / number) * length for k in range(number)] for i in range(bins)]


def cells(position, side):
  """[(cell, weight), ...] of a sample along an axis: none far outside, the border's cell near outside."""
  if not -1 <= position <= side:
    return []
  position = min(max(position, 0), side - 1)
  first = math.floor(position)
  shares = [(first, first + 1 - position), (first + 1, position - first)]
  return [(cell, share) for cell, share in shares if share > 0]


def roi_weights(box, hw, size, scale=1, sampling_ratio=0):
  """How much of each cell of a map goes into each bin of one box: (s, r, h, w)."""
  weights = np.zeros((*size, *hw))
  if not np.all(np.isfinite(box)):
    return weights
  left, top, right, bottom = np.asarray(box, np.float64) * scale - 0.5
  rows, columns = samples(top, bottom, size[0], sampling_ratio), samples(left, right, size[1], sampling_ratio)
  for s, r in itertools.product(range(size[0]), range(size[1])):
    for y, x in itertools.product(rows[s], columns[r]):
      for (i, share), (j, other) in itertools.product(cells(y, hw[0]), cells(x, hw[1])):
        weights[s, r, i, j] += share * other / (len(rows[s]) * len(columns[r]))
  return weights


def roi_align(features, boxes, size, scale=1, sampling_ratio=0):
  """features (h, w, c), boxes (n, 4) -> (n, s, r, c)."""
  weights = [roi_weights(box, features.shape[:2], size, scale, sampling_ratio) for box in boxes]
  return np.einsum('nsrhw,hwc->nsrc', np.array(weights), features)


def roi_align_gradient(dout, boxes, hw, size, scale=1, sampling_ratio=0):
  """dout (n, s, r, c) -> the gradient of the map, (h, w, c)."""
  weights = [roi_weights(box, hw, size, scale, sampling_ratio) for box in boxes]
  return np.einsum('nsrhw,nsrc->hwc', np.array(weights), dout)


def mask_targets(masks, boxes, rows, size):
  """masks (g, h, w) of 0 and 1 -> (n, s, r) of 0 and 1."""
  masks = np.asarray(masks, np.float64)[..., None]
  parts = [roi_align(masks[row], box[None], size)[0, ..., 0] for box, row in zip(boxes, rows, strict=True)]
  return (np.array(parts) >= 0.5).astype(np.float32)
