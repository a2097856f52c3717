"""Figures of what a detector detects and of what it gets wrong."""

import math

import numpy as np

from ctx_flax.analysis import figures
from ctx_flax.analysis.figures import run_title, short
from ctx_flax.data.object_drawing import draw_objects

COLUMNS = 5  # of the gallery
SIDE = 256  # pixels of the longer side of a close-up
MARGIN = 0.5  # of what a close-up shows around the boxes, in their longer side
NAMED = 3  # curves of the best and of the worst classes that are named


def close_up(pixels, boxes, labels, class_names, scores=None, masks=None, side=SIDE):
  """The part of an image around some boxes, with their objects drawn as by `draw_objects`.

  Args:
    pixels: uint8 (h, w, 3).
    boxes: float (n, 4), n above 0, x1 y1 x2 y2 in pixels of the image.
    labels, class_names, scores, masks: see `draw_objects`.
    side: pixels of the longer side of the result.

  Returns:
    uint8 (h', w', 3).
  """
  h, w, _ = pixels.shape
  boxes = np.asarray(boxes, np.float64)
  low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
  margin = MARGIN * max((high - low).max(), 1.0)
  x1, y1 = np.clip(np.floor(low - margin), 0, (w - 1, h - 1)).astype(int).tolist()
  x2, y2 = np.clip(np.ceil(high + margin), (x1 + 1, y1 + 1), (w, h)).astype(int).tolist()
  boxes = boxes - [x1, y1, x1, y1]
  if masks is not None:
    masks = masks[:, y1:y2, x1:x2]
  scale = side / max(x2 - x1, y2 - y1)
  part = pixels[y1:y2, x1:x2]
  return draw_objects(part, boxes, labels, class_names, scores=scores, masks=masks, scale=scale)


def gallery(pictures, captions, heading, title, columns=COLUMNS):
  """A Figure of pictures uint8 (h, w, 3) of any sizes with their captions; `title` is that of the run."""
  columns = min(columns, max(len(pictures), 1))
  rows = max(math.ceil(len(pictures) / columns), 1)
  figure, axes = figures.new_figure(rows, columns, width=max(2.5, 5 / columns), height=2.9)
  for panel in axes.flat:
    panel.set_axis_off()
  for panel, picture, caption in zip(axes.flat, pictures, captions, strict=False):
    panel.set_axis_on()
    figures.show_image(panel, picture)
    panel.set_title('\n'.join(short(line, 34) for line in caption.splitlines()), fontsize=8)
  if not len(pictures):
    axes[0, 0].text(0.5, 0.5, 'none', ha='center', va='center', transform=axes[0, 0].transAxes)
  figure.suptitle(f'{heading}\n{run_title(title)}')
  return figure


def precision_curves(precision, class_names, title, threshold=0.5, kind=''):
  """A Figure of precision against recall: of every class, and their mean.

  Args:
    precision: float (n, 101), what `errors.interpolated` returned; NaN for classes without objects.
    class_names: n names.
    title: of the run.
    threshold: intersection over union of a hit.
    kind: of what, 'box' or 'mask'.
  """
  precision = np.asarray(precision)
  average = precision.mean(1)
  classes = np.flatnonzero(np.isfinite(average))
  classes = classes[np.argsort(-average[classes], kind='stable')]
  named = classes if len(classes) <= 2 * NAMED else np.concatenate([classes[:NAMED], classes[-NAMED:]])
  figure, axes = figures.new_figure(width=6.5, height=4.2)
  panel = axes[0, 0]
  recall = np.linspace(0, 100, precision.shape[1])
  for n in classes:
    if n not in named:
      panel.plot(recall, 100 * precision[n], color='0.8', linewidth=0.8)
  for number, n in enumerate(named, 1):
    label = f'{short(class_names[n])}: AP {100 * average[n]:.1f}'
    panel.plot(recall, 100 * precision[n], **figures.series_style(number) | {'marker': ''}, label=label)
  if len(classes):
    mean = precision[classes].mean(0)
    label = f'mean of {len(classes)} classes: AP {100 * mean.mean():.1f}'
    panel.plot(recall, 100 * mean, color='black', linewidth=2.5, label=label)
    panel.legend(frameon=False, fontsize='small', loc='center left', bbox_to_anchor=(1, 0.5))
  else:
    panel.text(0.5, 0.5, 'no objects', ha='center', va='center', transform=panel.transAxes)
  panel.set_xlabel('recall (%)')
  panel.set_ylabel('precision at this recall or more (%)')
  panel.set_xlim(0, 100)
  panel.set_ylim(0, 101)
  figure.suptitle(f'Precision at {kind} IoU {threshold:g}\n{run_title(title)}'.replace('  ', ' '))
  return figure


def missed_bars(sizes, title):
  """A Figure of the share of objects that are missed; `sizes` is what `errors.missed_by_size` returned."""
  figure, axes = figures.new_figure(width=5, height=3.6)
  panel = axes[0, 0]
  totals = {size: count for size, count in sizes.items() if count['objects']}
  heights = [100 * count['missed'] / count['objects'] for count in totals.values()]
  bars = panel.bar(range(len(totals)), heights, 0.6, color=figures.COLOURS[6], edgecolor='black')
  labels = [f'{count["missed"]:,} of {count["objects"]:,}' for count in totals.values()]
  panel.bar_label(bars, labels, padding=2, fontsize=8)
  panel.set_xticks(range(len(totals)), list(totals))
  panel.set_ylabel('objects missed (%)')
  panel.set_ylim(0, 110)
  figure.suptitle(f'Missed objects by size\n{run_title(title)}')
  return figure
