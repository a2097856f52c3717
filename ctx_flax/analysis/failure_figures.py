"""The figures of ctx_flax.analysis.failures."""

import math

import matplotlib
import numpy as np

from ctx_flax.analysis import figures
from ctx_flax.analysis.figures import run_title, short

COLUMNS = 6  # of the gallery
LONGEST_BESIDE = 20  # letters of a class name in the gallery, between its neighbours


def gallery(pixels, table, title, contextual=True):
  """A Figure of mistakes, an image each with what it is and what it was taken for.

  Args:
    pixels: uint8 (m, s, s, 3).
    table: what `failures.mistake_table` returned.
    title: of the run.
    contextual: False for a plain network, which drops no class: nothing is said about it then.
  """
  columns = min(COLUMNS, max(len(pixels), 1))
  rows = max(math.ceil(len(pixels) / columns), 1)
  figure, axes = figures.new_figure(rows, columns, width=max(2.5, 5 / columns), height=3.2)
  for panel in axes.flat:
    panel.set_axis_off()
  for i, panel in zip(range(len(pixels)), axes.flat, strict=False):
    panel.set_axis_on()
    dropped = table['dropped_at_stage'][i]
    lines = [
      f'true {short(table["true"][i], LONGEST_BESIDE)} ({100 * table["true_probability"][i]:.0f} %)',
      f'predicted {short(table["predicted"][i], LONGEST_BESIDE)} ({100 * table["probability"][i]:.0f} %)',
    ]
    if contextual:
      lines.append(f'dropped at stage {dropped}' if dropped != '-' else 'not dropped')
    figures.show_image(panel, pixels[i])
    panel.set_title('\n'.join(lines), fontsize=8)
  if not len(pixels):
    axes[0, 0].text(0.5, 0.5, 'no mistakes', ha='center', va='center', transform=axes[0, 0].transAxes)
  figure.suptitle(f'Most confident mistakes\n{run_title(title)}')
  return figure


def confusion_bars(pairs, class_names, title, counted='images'):
  """A Figure of confusions, the most frequent one at the top.

  Args:
    pairs: what `failures.confusions` returned, or `errors.confused_pairs` of detections.
    class_names: by number.
    title: of the run.
    counted: what is confused, a key of each pair.
  """
  figure, axes = figures.new_figure(width=8, height=1.4 + 0.3 * max(len(pairs), 1))
  panel = axes[0, 0]
  names = [f'{short(class_names[p["true"]])}  →  {short(class_names[p["predicted"]])}' for p in pairs]
  places = np.arange(len(pairs))[::-1]
  bars = panel.barh(places, [p[counted] for p in pairs], color=figures.COLOURS[6], edgecolor='black')
  panel.bar_label(bars, [f'{p[counted]:,} ({100 * p["share"]:.0f} %)' for p in pairs], padding=3, fontsize=8)
  panel.set_yticks(places, names)
  panel.set_xlabel(f'test {counted} (% of the class)')
  panel.set_xlim(0, 1.4 * max([p[counted] for p in pairs], default=1))  # room for the numbers
  panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
  # Of the figure, not of the axes: what the class names leave of the width is too little for it.
  figure.suptitle(f'Most frequent confusions, true → predicted\n{run_title(title)}')
  if not pairs:
    panel.text(0.5, 0.5, f'no confused {counted}', ha='center', va='center', transform=panel.transAxes)
  return figure


def stage_bars(stages, title):
  """A Figure of accuracy and recall by stage; `stages` is what `failures.by_stage` returned."""
  figure, axes = figures.new_figure(width=5.5, height=3.6)
  panel = axes[0, 0]
  series = {
    'accuracy: its best class is the true one': (stages['accuracy'], figures.COLOURS[1], '', -0.2),
    'recall: the true class is still considered': (stages['recall'], figures.COLOURS[5], '//', 0.2),
  }
  for label, (values, colour, hatch, offset) in series.items():
    if values:
      places = [s + (offset if stages['recall'] else 0) for s in values]
      heights = [100 * v for v in values.values()]
      bars = panel.bar(places, heights, 0.38, color=colour, hatch=hatch, edgecolor='black', label=label)
      panel.bar_label(bars, [f'{h:.1f}' for h in heights], fontsize=8)
  first, last = min(stages['accuracy']), max(stages['accuracy'])
  panel.set_xlim(first - 0.6, last + 0.6)
  panel.set_xticks(list(stages['accuracy']), [f'stage {s}' for s in stages['accuracy']])
  panel.set_ylabel('test images (%)')
  panel.set_ylim(0, 125)
  panel.set_yticks(range(0, 101, 20))
  panel.legend(frameon=False, fontsize='small', loc='upper left')
  panel.set_title(f'Accuracy by stage\n{run_title(title)}')
  return figure
