"""The curves of a run: reading metrics.jsonl, and what is drawn of it."""

import json

import numpy as np

from ctx_flax.analysis import curves


def lines(contextual=True):
  stages = (1, 2, 3, 4) if contextual else (4,)
  for step in (10, 20):
    line = {'step': step, 'learning_rate': step / 1000}
    for s in stages:
      line |= {f'train/loss{s}': s + 1 / step, f'train/accuracy{s}': s * step / 100}
      if s > 1 and contextual:
        line[f'train/recall{s}'] = 1 - s / step
      if step == 20:
        line |= {f'test/{w}/accuracy{s}': s / 8 + (w == 'raw') for w in ('raw', 'EMA')}
        line |= {f'test/{w}/accuracy': 0.5 for w in ('raw', 'EMA')}
    yield line


def write(folder, entries, end=''):
  folder.mkdir()
  text = ''.join(json.dumps(line) + '\n' for line in entries)
  (folder / 'metrics.jsonl').write_text(text + end)
  return folder


def test_reading(tmp_path):
  entries = [*lines(), {'step': 30, 'train/loss4': None}]
  metrics = curves.read_metrics(write(tmp_path / 'run', entries, end='{"step": 40, "train/lo'))
  steps, values = metrics['train/loss4']
  np.testing.assert_array_equal(steps, [10, 20, 30])
  np.testing.assert_array_equal(values, [4.1, 4.05, np.nan])
  np.testing.assert_array_equal(metrics['test/EMA/accuracy3'], [[20], [3 / 8]])
  assert curves.tested_weights(metrics) == 'EMA'
  assert curves.read_metrics(tmp_path / 'nothing') == {}


def test_four_panels(tmp_path):
  figure = curves.draw(curves.read_metrics(write(tmp_path / 'run', lines())), 'a run')
  loss, accuracy, recall, rate = figure.axes
  assert [line.get_label() for line in loss.lines] == [f'stage {s}' for s in (1, 2, 3, 4)]
  np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [10, 20])
  # A stage's line is followed by the mark of the test images, of the averaged weights.
  np.testing.assert_allclose(accuracy.lines[1].get_ydata(), [100 / 8])
  assert [line.get_label() for line in recall.lines] == ['stage 2', 'stage 3', 'stage 4']
  np.testing.assert_allclose(recall.lines[2].get_ydata(), [60, 80])
  np.testing.assert_allclose(rate.lines[0].get_ydata(), [0.01, 0.02])
  assert {axes.get_xlabel() for axes in figure.axes} == {'step'}
  assert accuracy.get_ylabel() == 'accuracy (%)' and 'nats' in loss.get_ylabel()
  assert len({(line.get_color(), line.get_linestyle()) for line in loss.lines}) == 4


def test_plain_beside_contextual(tmp_path):
  plain = curves.read_metrics(write(tmp_path / 'plain', lines(contextual=False)))
  both = {'contextual': curves.read_metrics(write(tmp_path / 'ctx', lines())), 'plain': plain}
  loss, accuracy = curves.draw_beside(both).axes
  assert [line.get_label() for line in loss.lines] == ['contextual', 'plain']
  np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [40, 80])
  recall = curves.draw(plain, 'plain').axes[2]
  assert not recall.lines and 'drops no class' in recall.texts[0].get_text()
