"""Sweeps: which runs they make, going on where they were, and what they write and draw."""

import json

import numpy as np
import pytest
from run_files import metric_lines
from tiny import tiny_config

from ctx_flax.analysis import alpha_sweep, figures, many_runs
from ctx_flax.tasks import run
from ctx_flax.training import repeats
from ctx_flax.training.halt import Halt


def sweep_config(**options):
  config = tiny_config()
  config.sweep.update(over=(0.1, 0.5), seeds=2, **options)
  return config


@pytest.fixture
def trained(monkeypatch):
  """Runs that only write their config; a list of (alpha, seed), and accuracies that follow from them."""
  done = []

  def train(config, workdir):
    if len(done) == train.fails_after:
      train.fails_after = None
      raise Halt('stopped by SIGTERM', 143)
    alpha_sweep.run_folder.claim(workdir, config)
    done.append((config.loss.alpha, config.seed))
    accuracy = config.loss.alpha + config.seed / 100
    of_stages = {f'accuracy{s}': accuracy * s / 4 for s in (1, 2, 3, 4)}
    return {'raw': {'accuracy': 0.0}, 'EMA': {'accuracy': accuracy, **of_stages}}

  train.fails_after = None
  monkeypatch.setattr(run, 'train', train)
  return done, train


def test_goes_on_where_it_was(trained, tmp_path, monkeypatch):
  monkeypatch.setattr(figures, 'save', lambda *_: None)  # a figure after every run takes seconds
  done, train = trained
  train.fails_after = 3
  with pytest.raises(Halt, match='SIGTERM') as halted:
    alpha_sweep.alpha_sweep(sweep_config(), tmp_path)
  assert halted.value.status == 143 and done == [(0.1, 0), (0.1, 1), (0.5, 0)]
  # What is finished is there already.
  written = json.loads((tmp_path / 'sweep-loss.alpha' / 'sweep.json').read_text())
  assert written['accuracy'] == [[0.1, 0.11], [0.5, None]]
  found = alpha_sweep.alpha_sweep(sweep_config(), tmp_path)
  assert done == [(0.1, 0), (0.1, 1), (0.5, 0), (0.5, 1)]  # none twice
  np.testing.assert_allclose(found['accuracy'], [[0.1, 0.11], [0.5, 0.51]])
  # More values and seeds go on from there too.
  config = sweep_config()
  config.sweep.update(over=(0.1, 0.5, 1), seeds=3)
  alpha_sweep.alpha_sweep(config, tmp_path)
  assert done[4:] == [(0.1, 2), (0.5, 2), (1.0, 0), (1.0, 1), (1.0, 2)]


def test_a_finished_run_of_another_config_is_refused(trained, tmp_path):
  alpha_sweep.alpha_sweep(sweep_config(), tmp_path)
  config = sweep_config()
  config.optimizer.learning_rate = 0.5
  with pytest.raises(Halt, match=r'holds a run of another config: optimizer\.learning_rate') as halted:
    alpha_sweep.alpha_sweep(config, tmp_path)
  assert halted.value.status == 2


def test_any_field(tmp_path):
  config = sweep_config(field='model.class_counts')
  config.sweep.update(over=((8, 6, 4), (5, 4, 3)), seeds=1)
  configs = alpha_sweep.sweep_configs(config)
  assert list(configs) == ['8,6,4/seed-0', '5,4,3/seed-0']
  assert [c.model.class_counts for c in configs.values()] == [(8, 6, 4), (5, 4, 3)]
  config.sweep.update(field='data.train_split', over=('train', 'a/b'))
  assert list(alpha_sweep.sweep_configs(config)) == ['train/seed-0', 'a_b/seed-0']


@pytest.mark.parametrize(
  'field, values, seeds, message',
  [
    ('loss.alhpa', (0.1,), 1, r"'loss\.alhpa', which the config lacks; did you mean 'loss\.alpha'"),
    ('loss', (0.1,), 1, "'loss', which the config lacks"),
    ('seed.alpha', (0.1,), 1, 'which the config lacks'),
    ('loss.alpha', ('much',), 1, r"holds 'much', but loss\.alpha is of type float"),
    ('train.steps', (1.5,), 1, r'holds 1\.5, but train\.steps is of type int'),
    ('loss.alpha', (), 1, 'give the values'),
    ('loss.alpha', (0.1,), 0, r'sweep\.seeds must be 1 or more'),
    ('predict.top', (3,), 1, 'changes nothing about what a run learns'),
    ('eval.batch_size', (3,), 1, 'changes nothing about what a run learns'),
    ('seed', (1, 2), 2, r'sweep\.seeds must be 1'),
  ],
)
def test_wrong_input(field, values, seeds, message, tmp_path):
  config = tiny_config()
  config.sweep.update(field=field, over=values, seeds=seeds)
  with pytest.raises(Halt, match=message):
    alpha_sweep.alpha_sweep(config, tmp_path)
  assert not list(tmp_path.iterdir())


def test_figure():
  accuracy = np.array([[0.9, 0.94], [0.8, np.nan], [0.5, 0.6]])
  found = {'field': 'loss.alpha', 'values': [0.5, 0.1, 1.0], 'seeds': [0, 1], 'accuracy': accuracy}
  axes = alpha_sweep.draw(found).axes[0]
  assert axes.get_ylabel() == 'test accuracy (%)' and 'alpha' in axes.get_xlabel()
  runs, mean = axes.lines[0], axes.containers[0][0]
  np.testing.assert_allclose(runs.get_ydata(), [80, np.nan, 90, 94, 50, 60])
  np.testing.assert_allclose(mean.get_xdata(), [0.1, 0.5, 1.0])  # in order, whatever order they were given in
  np.testing.assert_allclose(mean.get_ydata(), [80, 92, 55])
  (bars,) = axes.containers[0][2]
  spread = [segment[1, 1] - segment[0, 1] for segment in bars.get_segments()]
  np.testing.assert_allclose(spread, [0, 2 * 4 / 2**0.5, 2 * 10 / 2**0.5])
  assert [text.get_text() for text in axes.get_xticklabels()] == ['0.1', '0.5', '1']


def test_figure_of_values_that_are_no_numbers():
  found = {'field': 'model.class_selection', 'values': ['rerank', 'reduction'], 'seeds': [0]}
  axes = alpha_sweep.draw(found | {'accuracy': np.array([[0.5], [0.25]])}).axes[0]
  assert [text.get_text() for text in axes.get_xticklabels()] == ['rerank', 'reduction']
  mean = axes.containers[0][0]
  np.testing.assert_allclose(mean.get_ydata(), [50, 25])
  # They have no order, so no line leads from one to the next; a single seed needs no legend.
  assert mean.get_linestyle() == 'None' and axes.get_legend() is None


@pytest.mark.slow
def test_runs_for_real(tmp_path, capsys):
  """Two runs; started again none is trained."""
  config = tiny_config()
  config.sweep.update(field='data.split_seed', over=(0, 1), seeds=1)
  found = alpha_sweep.alpha_sweep(config, tmp_path)
  folder = tmp_path / 'sweep-data.split_seed'
  for i, value in enumerate(('0', '1')):
    last = metric_lines(folder / value / 'seed-0')[-1]
    assert last['step'] == 6 and last['test/EMA/accuracy'] == found['accuracy'][i, 0]
    assert last['test/EMA/accuracy3'] == found['accuracy_by_stage'][3][i, 0]
  assert {path.name for path in folder.glob('sweep.*')} == {'sweep.json', 'sweep.png', 'sweep.svg'}
  assert 'run 2 of 2' in capsys.readouterr().out
  np.testing.assert_array_equal(alpha_sweep.alpha_sweep(config, tmp_path)['accuracy'], found['accuracy'])
  printed = capsys.readouterr().out
  assert 'run ' not in printed and 'stage 4' in printed and 'data.split_seed' in printed


@pytest.mark.parametrize('data', [b'', b'{"accur', b'[1]', b'\xff'])
def test_a_damaged_result_is_no_result(tmp_path, capsys, data):
  path = tmp_path / many_runs.RESULT
  path.write_bytes(data)
  assert many_runs.read_result(path) == {}
  assert capsys.readouterr().out == f'{path} is damaged: the run is tested again\n'


def test_mean_and_deviation():
  assert repeats.mean_and_deviation([1, 3]) == (2.0, 2**0.5)
  mean, deviation = repeats.mean_and_deviation([5])
  assert mean == 5 and np.isnan(deviation)
