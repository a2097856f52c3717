"""The curves of a run: what its metrics.jsonl holds, per stage."""

import pathlib
import re

import numpy as np

from ctx_flax.analysis import figures
from ctx_flax.files import printable
from ctx_flax.training.metric_log import described, read_lines

BY_STAGE = re.compile(r'(?:train|test/\w+)/(?:loss|accuracy|recall)(\d+)')


def read_metrics(workdir):
  """The metrics of a run: {name: (steps (k,), values (k,))}, each of the lines that hold it.

  Damaged lines are left out, and said; so is one that a killed run left unfinished. {} where there is no
  metrics.jsonl.
  """
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  found: dict[str, list] = {}
  lines, damaged = read_lines(path)
  if damaged:
    print(f'{printable(described(path, damaged))} and left out', flush=True)
  for _, line in lines:
    for name, value in line.items():
      if name != 'step':
        # null stands for a value that was not finite.
        found.setdefault(name, []).append((line['step'], np.nan if value is None else value))
  return {name: tuple(np.array(values, np.float64).T) for name, values in found.items()}


def tested_weights(metrics):
  """'EMA' or 'raw': whose test metrics there are, the averaged ones' first; '' for none."""
  return next((w for w in ('EMA', 'raw') if f'test/{w}/accuracy' in metrics), '')


def stages_in(metrics):
  """The numbers of the stages of which {name: ...} holds metrics, ascending."""
  return sorted({int(match[1]) for match in map(BY_STAGE.fullmatch, metrics) if match})


def draw(metrics, title):
  """A Figure of four panels: loss, accuracy and recall of the true class per stage, and the learning rate.

  Lines are training batches, marks the test images.
  """
  figure, axes = figures.new_figure(2, 2, width=5.2, height=3.3)
  panels = dict(zip(('loss', 'accuracy', 'recall', 'learning rate'), axes.flat, strict=True))
  weights = tested_weights(metrics)
  for kind, unit, factor in (
    ('loss', 'cross-entropy (nats)', 1),
    ('accuracy', '%', 100),
    ('recall', '%', 100),
  ):
    panel = panels[kind]
    for stage in stages_in(metrics):
      style = figures.series_style(stage - 1)
      if f'train/{kind}{stage}' in metrics:
        steps, values = metrics[f'train/{kind}{stage}']
        panel.plot(steps, factor * values, **style | {'marker': ''}, label=f'stage {stage}')
      if f'test/{weights}/{kind}{stage}' in metrics:
        steps, values = metrics[f'test/{weights}/{kind}{stage}']
        panel.plot(steps, factor * values, **style | {'linestyle': '', 'markersize': 6})
    panel.set_ylabel(f'{kind}, {unit}' if factor == 1 else f'{kind} ({unit})')
  panels['recall'].set_title('images whose class the stage still considers')
  if 'learning_rate' in metrics:
    steps, values = metrics['learning_rate']
    panels['learning rate'].plot(steps, values, **figures.series_style(0) | {'marker': ''})
  panels['learning rate'].set_ylabel('learning rate')
  for kind, panel in panels.items():
    panel.set_xlabel('step')
    if panel.get_legend_handles_labels()[1]:
      panel.legend(frameon=False, fontsize='small')
    elif kind == 'recall':
      panel.text(0.5, 0.5, 'a plain network drops no class', ha='center', transform=panel.transAxes)
  marks = f'marks: test images, {weights} weights' if weights else 'not tested'
  figure.suptitle(f'{figures.run_title(title)}\nlines: training batches, {marks}')
  return figure


def draw_beside(runs):
  """A Figure of {name: metrics} of runs: the last stage's loss and accuracy in training, and tested."""
  figure, axes = figures.new_figure(1, 2, width=5.2, height=3.5)
  for panel, kind, factor in zip(axes[0], ('loss', 'accuracy'), (1, 100), strict=True):
    for number, (name, metrics) in enumerate(runs.items()):
      style, weights = figures.series_style(number), tested_weights(metrics)
      last = max(stages_in(metrics), default=0)
      if f'train/{kind}{last}' in metrics:
        steps, values = metrics[f'train/{kind}{last}']
        panel.plot(steps, factor * values, **style | {'marker': ''}, label=figures.run_title(name))
      if f'test/{weights}/{kind}{last}' in metrics:
        steps, values = metrics[f'test/{weights}/{kind}{last}']
        panel.plot(steps, factor * values, **style | {'linestyle': '', 'markersize': 6})
    panel.set_xlabel('step')
    panel.set_ylabel('loss of the last stage (nats)' if kind == 'loss' else 'accuracy of the last stage (%)')
    if runs:
      panel.legend(frameon=False)
  figure.suptitle('lines: training batches, marks: test images')
  return figure
