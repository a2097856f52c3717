"""The arms of the experiments, and the program on two tiny arms."""

import json
import types

import numpy as np
import pytest
from networks import slow_unless
from run_files import make_run

from configs import digits
from ctx_flax.tasks import run
from ctx_flax.training import run_folder
from ctx_flax.training.run_lock import RunLock
from experiments import __main__ as program
from experiments import arms, context_variance, jobs, side_by_side, times
from experiments.results import read_result


def in_this_process(job, configs, folder, at, after=None):
  """Stands for side_by_side.run_each."""
  results = {}
  for name, config in configs.items():
    if not read_result(folder / name, job):
      run_folder.claim(folder / name, config)
      jobs.JOBS[job](folder / name)
    results[name] = read_result(folder / name, job)
    if after:
      after(results)
  return results


@pytest.mark.parametrize('data', slow_unless(arms.DATA, 'digits'))
def test_arms_differ_in_what_they_say_only(data):
  base = arms.base_config(data)
  made = {name: arms.arm_config(name, base, (9, 7, 5)) for name in arms.ARMS}
  n = base.model.num_classes
  assert {name: config.model.name for name, config in made.items() if 'ctx' not in config.model.name} == {
    'plain': 'convnext_mini',
    'plain-wide': 'convnext_mini',
  }
  counts = {name: config.model.class_counts for name, config in made.items()}
  assert counts['naive'] == (n, n, n) and counts['shares'] == counts['shares-warmup'] == ()
  assert counts['reduction'] == counts['reduction-warmup'] == counts['rerank'] == (9, 7, 5)
  assert {name for name, config in made.items() if config.train.class_counts_warmup} == {
    'reduction-warmup',
    'shares-warmup',
  }
  assert {name for name, config in made.items() if config.model.class_selection == 'rerank'} == {'rerank'}
  for config in made.values():
    config.model, config.train.class_counts_warmup = base.model, 0.0
    assert config == base


def test_steps_and_warm_up_can_be_given():
  own, given = arms.base_config('patches'), arms.base_config('patches', steps=7, warmup_epochs=1.0)
  assert (own.train.steps, own.optimizer.warmup_epochs) == (400, 0.1)
  assert (given.train.steps, given.optimizer.warmup_epochs) == (7, 1.0)


@pytest.mark.slow
def test_a_plain_network_is_widened_to_the_parameters_of_the_contextual_one():
  base = arms.base_config('glyphs')
  size = lambda name: arms.parameters(
    arms.networks.model_keywords(arms.arm_config(name, base), base.model.num_classes), base
  )
  plain, wide, contextual = size('plain'), size('plain-wide'), size('naive')
  assert plain < 0.6 * contextual and abs(wide - contextual) < 0.03 * contextual
  dims = np.array(arms.arm_config('plain-wide', base).model.dims)
  ratios = dims / np.array(base.model.dims)
  assert ratios.max() / ratios.min() < 1.1


@pytest.mark.slow
def test_program(tmp_path, monkeypatch, capsys):
  small = {
    'model.dims': (8, 16, 24, 32),
    'model.depths': (1, 1, 1, 1),
    'train.batch_size': 16,
    'train.ema_decay': 0.0,
    'train.eval_every': 0,
    'eval.batch_size': 120,
  }
  monkeypatch.setitem(arms.DATA, 'digits', (digits, small))

  def train(config, workdir):
    if workdir.parent.name == 'naive':  # its recall curves are looked at
      make_run(config, workdir, step=config.train.steps)
    run_folder.claim(workdir, config)
    plain = 'ctx' not in config.model.name
    stages = {} if plain else {f'{kind}{s}': 0.1 * s for kind in ('accuracy', 'recall') for s in (2, 3, 4)}
    return {'raw': {'accuracy': 0.25 + config.seed / 10, 'accuracy1': 0.0, 'accuracy4': 0.4} | stages}

  monkeypatch.setattr(run, 'train', train)
  monkeypatch.setattr(side_by_side, 'run_each', in_this_process)
  monkeypatch.setattr(side_by_side, 'places', lambda _: [side_by_side.Place()])
  once = types.SimpleNamespace(run=lambda: None)
  monkeypatch.setattr(times, 'compiled_step', lambda config, num_classes, b: once)
  program.main(['digits', '--arms', 'plain', 'reduction', '--seeds=2', '--steps=1', f'--workdir={tmp_path}'])
  evidence = json.loads((tmp_path / 'evidence.json').read_text())
  naive = json.loads((tmp_path / 'naive/seed-0/analysis/recall_curves.json').read_text())
  assert evidence['counts'] == naive['counts']['all']
  assert list(evidence['arms']) == ['plain', 'reduction'] and evidence['steps'] == 1
  for name, arm in evidence['arms'].items():
    for seed in (0, 1):
      folder = tmp_path / name / f'seed-{seed}'
      assert json.loads((folder / 'config.json').read_text())['seed'] == seed
      result = json.loads((folder / 'result.json').read_text())
      assert arm['accuracy'][seed] == result['accuracy']
    assert arm['seconds_per_step'] > 0
  printed = capsys.readouterr().out
  table = (tmp_path / 'evidence.md').read_text()
  assert table in printed and table.count('\n| ') == 3  # a heading and two arms
  row = table.splitlines()[-1].split(' | ')
  assert row[1:5] == ['2', '30.0 ± 7.1', '0.0, 20.0, 30.0, 40.0', '20.0, 30.0, 40.0']
  assert row[5] == f'{evidence["arms"]["reduction"]["parameters"]:,}'


def test_alpha_sweep(tmp_path, monkeypatch):
  swept = {}

  def sweep(config, workdir):
    swept.update(config=config, workdir=workdir)

  monkeypatch.setattr(program.alpha_sweep, 'alpha_sweep', sweep)
  monkeypatch.setattr(side_by_side, 'run_each', lambda *_: {'naive/seed-0': {'all': [9, 8, 7]}})
  monkeypatch.setattr(side_by_side, 'places', lambda _: [side_by_side.Place()])
  program.main(['digits', '--alpha-sweep', '--seeds=2', f'--workdir={tmp_path}'])
  config = swept['config']
  assert swept['workdir'] == tmp_path and config.sweep.field == 'loss.alpha' and config.sweep.seeds == 2
  assert config.model.class_counts == (9, 8, 7) and config.train.class_counts_warmup == arms.WARMUP


def test_wrong_seeds(capsys):
  with pytest.raises(SystemExit):
    program.parse(['digits', '--seeds=-1'])
  assert '--seeds must be 0 or more, but is -1' in capsys.readouterr().err


@pytest.mark.parametrize(
  'option, message',
  [
    ('--arms=plain', '--arms is not for emoji'),
    ('--alpha-sweep', '--alpha-sweep is not for emoji'),
    ('--warmup-epochs=0', '--warmup-epochs is not for emoji'),
    ('--steps=19', '--steps must be 20 or more for emoji, but is 19'),
  ],
)
def test_options_that_emoji_has_no_use_for(option, message, capsys):
  with pytest.raises(SystemExit):
    program.parse(['emoji', '--data-path=pictures', option])
  assert message in capsys.readouterr().err
  assert program.parse(['emoji', '--data-path=pictures', '--steps=20']).steps == 20


def test_emoji_needs_its_pictures(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(side_by_side, 'places', lambda _: [side_by_side.Place()])
  for options, message in (
    ([], 'emoji needs --data-path'),
    ([f'--data-path={tmp_path}'], 'emoji_48.zip does not exist'),
  ):
    with pytest.raises(SystemExit) as caught:
      program.main(['emoji', *options, f'--workdir={tmp_path}/run'])
    assert caught.value.code == 2 and message in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_two_experiments_in_one_folder_refuse_one_another(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(side_by_side, 'places', lambda _: [side_by_side.Place()])
  monkeypatch.setattr(program, 'run', lambda *_: pytest.fail('it began'))
  with RunLock(tmp_path), pytest.raises(SystemExit) as caught:
    program.main(['digits', f'--workdir={tmp_path}'])
  assert caught.value.code == 2 and 'is in use by process' in capsys.readouterr().err


@pytest.mark.slow
def test_contexts_of_half_of_the_classes_hardly_differ():
  assert context_variance.variance(500, contrast=False) < 0.01 < context_variance.variance(50, contrast=False)
  assert context_variance.variance(500, contrast=True) > 0.5
