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


def tested_weights(metrics, metric='accuracy'):
  """'EMA' or 'raw': whose test metrics there are, the averaged ones' first; '' for none."""
  return next((w for w in ('EMA', 'raw') if f'test/{w}/{metric}' in metrics), '')


def stages_in(metrics):
  """The numbers of the stages of which {name: ...} holds metrics, ascending."""
  return sorted({int(match[1]) for match in map(BY_STAGE.fullmatch, metrics) if match})


def add_line(panel, metrics, name, style, factor=1, label=None):
  """Draws a metric of training batches as a line, if there is one of that name."""
  if name in metrics:
    steps, values = metrics[name]
    panel.plot(steps, factor * values, **style | {'marker': ''}, label=label)


def add_marks(panel, metrics, name, style, factor=1, label=None):
  """Draws a metric of tests as marks, if there is one of that name."""
  if name in metrics:
    steps, values = metrics[name]
    panel.plot(steps, factor * values, **style | {'linestyle': '', 'markersize': 6}, label=label)


def explain(figure, title, weights):
  """Says above a figure of curves what its lines and marks are."""
  marks = f'marks: test images, {weights} weights' if weights else 'not tested'
  figure.suptitle(f'{figures.run_title(title)}\nlines: training batches, {marks}')


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
      add_line(panel, metrics, f'train/{kind}{stage}', style, factor, f'stage {stage}')
      add_marks(panel, metrics, f'test/{weights}/{kind}{stage}', style, factor)
    panel.set_ylabel(f'{kind}, {unit}' if factor == 1 else f'{kind} ({unit})')
  panels['recall'].set_title('images whose class the stage still considers')
  add_line(panels['learning rate'], metrics, 'learning_rate', figures.series_style(0))
  panels['learning rate'].set_ylabel('learning rate')
  for kind, panel in panels.items():
    panel.set_xlabel('step')
    if panel.get_legend_handles_labels()[1]:
      panel.legend(frameon=False, fontsize='small')
    elif kind == 'recall':
      panel.text(0.5, 0.5, 'a plain network drops no class', ha='center', transform=panel.transAxes)
  explain(figure, title, weights)
  return figure


def draw_beside(runs):
  """A Figure of {name: metrics} of runs: the last stage's loss and accuracy in training, and tested."""
  figure, axes = figures.new_figure(1, 2, width=5.2, height=3.5)
  for panel, kind, factor in zip(axes[0], ('loss', 'accuracy'), (1, 100), strict=True):
    for number, (name, metrics) in enumerate(runs.items()):
      style, weights = figures.series_style(number), tested_weights(metrics)
      last = max(stages_in(metrics), default=0)
      add_line(panel, metrics, f'train/{kind}{last}', style, factor, figures.run_title(name))
      add_marks(panel, metrics, f'test/{weights}/{kind}{last}', style, factor)
    panel.set_xlabel('step')
    panel.set_ylabel('loss of the last stage (nats)' if kind == 'loss' else 'accuracy of the last stage (%)')
    if runs:
      panel.legend(frameon=False)
  figure.suptitle('lines: training batches, marks: test images')
  return figure
