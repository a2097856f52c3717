"""Whether a network is right as often as it is sure: reliability diagrams and the calibration error.

Source: Guo et al., On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599.
"""

import numpy as np

from ctx_flax.analysis import figures
from ctx_flax.analysis.figures import run_title

COUNTED = 30  # bins: the images of more of them are not written as numbers


def reliability(confidence, correct, bins):
  """Images sorted into `bins` equally wide bins of confidence, each of them open at the left: (low, high].

  Args:
    confidence: float (m,), probability of the predicted class, 0..1.
    correct: bool (m,).
    bins: how many.

  Returns:
    {'edges': (bins + 1,), 'images': int (bins,), 'confidence': mean (bins,), 'accuracy': (bins,), nan in an
    empty bin, 'ece': the expected calibration error, the mean over images of |accuracy - confidence| of the
    bin that the image is in}.
  """
  confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
  edges = np.linspace(0, 1, bins + 1)
  # Rounding must not put a confidence of exactly an edge into the next bin.
  place = np.clip(np.searchsorted(edges, confidence - 1e-12, side='right') - 1, 0, bins - 1)
  images = np.bincount(place, minlength=bins)
  mean = lambda values: np.where(
    images > 0, np.bincount(place, values, minlength=bins) / np.maximum(images, 1), np.nan
  )
  sure, right = mean(confidence), mean(correct)
  gaps = np.where(images > 0, np.abs(right - sure), 0)
  ece = float((gaps * images).sum() / max(images.sum(), 1))
  return {'edges': edges, 'images': images, 'confidence': sure, 'accuracy': right, 'ece': ece}


def draw(found, title):
  """A Figure of what `reliability` returned: accuracy against confidence, and below it the images."""
  figure, axes = figures.new_figure(
    2, 1, width=4.8, height=2.8, sharex=True, gridspec_kw={'height_ratios': [3, 1]}
  )
  above, below = axes[:, 0]
  edges, width = 100 * found['edges'][:-1], 100 / len(found['images'])
  right = np.nan_to_num(100 * found['accuracy'])
  above.bar(
    edges, right, width, align='edge', color=figures.COLOURS[6], edgecolor='black', label='accuracy of a bin'
  )
  above.plot([0, 100], [0, 100], color='black', linestyle='--', label='as right as sure')
  filled = found['images'] > 0
  above.plot(
    100 * found['confidence'][filled],
    100 * found['accuracy'][filled],
    linestyle='',
    marker='o',
    color=figures.COLOURS[2],
    clip_on=False,
    label='mean confidence of a bin',
  )
  above.set_ylabel('accuracy (%)')
  above.set_ylim(0, 100)
  above.set_xlim(0, 100)
  # Outside: bars may stand in any corner.
  figure.legend(frameon=False, fontsize='small', loc='outside lower center', ncols=3)
  above.set_title(f'Reliability, {run_title(title)}\nexpected calibration error {100 * found["ece"]:.1f} %')
  bars = below.bar(edges, found['images'], width, align='edge', color='0.6', edgecolor='black')
  if len(bars) <= COUNTED:  # beside a bin with nearly all images the bars of the others are not seen
    counts = [f'{n}' if n else '' for n in found['images']]
    below.bar_label(bars, counts, padding=2, rotation=90, fontsize=7)
    below.set_ylim(0, 1.5 * max(found['images'].max(), 1))
  below.set_ylabel('images')
  below.set_xlabel('confidence: probability of the predicted class (%)')
  return figure
