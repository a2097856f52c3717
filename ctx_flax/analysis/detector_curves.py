"""The curves of a detector's run: the losses of all its parts, and the precision of its tests."""

import re

from ctx_flax.analysis import figures
from ctx_flax.analysis.curves import add_line, add_marks, explain, tested_weights

BY_STAGE = re.compile(r'train/(class|box|mask)(\d+)')
PROPOSALS = {'class': 'object or not', 'box': 'boxes'}  # the losses train/rpn_NAME
OF_STAGES = {'class': 'classes', 'box': 'boxes', 'mask': 'masks'}  # the losses train/NAMEs of a stage s
PRECISION = {
  'mask_ap': 'masks',
  'mask_ap50': 'masks, IoU 0.5',
  'box_ap': 'boxes',
  'box_ap50': 'boxes, IoU 0.5',
}


def draw(metrics, title):
  """A Figure of six panels: the losses of proposals, classes, boxes and masks, precision, learning rate.

  Lines are training batches, marks the test images; see `curves.read_metrics`.
  """
  figure, axes = figures.new_figure(2, 3, width=4.4, height=3.3)
  proposals, *heads, tests, rate = axes.flat
  stages = stages_in(metrics)
  for number, (name, what) in enumerate(PROPOSALS.items()):
    add_line(proposals, metrics, f'train/rpn_{name}', figures.series_style(number), label=what)
  proposals.set_ylabel('losses of proposals')
  for panel, (name, what) in zip(heads, OF_STAGES.items(), strict=True):
    for stage in stages:
      label = f'stage {stage + 1}' if len(stages) > 1 else None
      add_line(panel, metrics, f'train/{name}{stage}', figures.series_style(stage), label=label)
    panel.set_ylabel(f'loss of {what}')
  weights = tested_weights(metrics, 'mask_ap')
  for number, (name, what) in enumerate(PRECISION.items()):
    add_marks(tests, metrics, f'test/{weights}/{name}', figures.series_style(number), 100, what)
  tests.set_ylabel('average precision (%)')
  _from_zero(tests)
  add_line(rate, metrics, 'learning_rate', figures.series_style(0))
  rate.set_ylabel('learning rate')
  for panel in axes.flat:
    panel.set_xlabel('step')
    if panel.get_legend_handles_labels()[1]:
      panel.legend(frameon=False, fontsize='small')
  explain(figure, title, weights)
  return figure


def draw_beside(runs):
  """A Figure of {name: metrics} of runs: their losses, all together, and the precision of masks."""
  figure, axes = figures.new_figure(1, 2, width=5.2, height=3.5)
  losses, tests = axes[0]
  for number, (name, metrics) in enumerate(runs.items()):
    style, weights = figures.series_style(number), tested_weights(metrics, 'mask_ap')
    label = figures.run_title(name)
    add_line(losses, metrics, 'train/loss', style, label=label)
    add_marks(tests, metrics, f'test/{weights}/mask_ap', style, 100, label)
  losses.set_ylabel('loss')
  tests.set_ylabel('average precision of masks (%)')
  _from_zero(tests)
  for panel in axes[0]:
    panel.set_xlabel('step')
    if panel.get_legend_handles_labels()[1]:
      panel.legend(frameon=False)
  figure.suptitle('lines: training batches, marks: test images')
  return figure


def stages_in(metrics):
  """The numbers of the stages of the heads of which {name: ...} holds losses, ascending, from 0."""
  return sorted({int(match[2]) for match in map(BY_STAGE.fullmatch, metrics) if match})


def _from_zero(panel):
  """Lets an axis of shares begin at 0, with room above the highest mark."""
  if panel.lines:
    panel.set_ylim(0, 1.1 * max(panel.get_ylim()[1], 1))
