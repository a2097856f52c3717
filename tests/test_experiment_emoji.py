"""The experiments on emoji: in which order, what is chosen by what, and the tables, on made-up results."""

import json

import pytest

from ctx_flax.analysis import records
from experiments import emoji, emoji_arms, emoji_tables, side_by_side
from experiments.emoji_variations import VARIATIONS
from experiments.results import RESULTS, read_result

COUNTS = (700, 300, 60)


@pytest.fixture
def experiment(tmp_path):
  return emoji_arms.Experiment(tmp_path / 'pictures', tmp_path, steps=40, seeds=2)


@pytest.fixture
def calls(monkeypatch):
  """Makes results up; the list of (job, {name: config}) that were asked for."""
  asked = []

  def result(job, name, config):
    if job == 'recall':
      return {'all': COUNTS, 'kept': (1, 1, 1)}
    if job == 'context':
      return {'rows': {'own': {}}}
    if name.startswith('rates/'):  # the middle one is best for plain networks, the smallest for others
      best = 2e-3 if 'ctx' not in config.model.name else 5e-4
      return {'accuracy': 0.5 - abs(config.optimizer.learning_rate - best)}
    accuracy = 0.25 + config.seed / 100 + ('ctx' in config.model.name) / 10
    stages = {f'{kind}{s}': 0.2 * s for kind in ('accuracy', 'recall') for s in (2, 3, 4)} | {
      'accuracy1': 0.1
    }
    return {'accuracy': accuracy} | (stages if 'ctx' in config.model.name else {'accuracy4': accuracy})

  def run_each(job, configs, folder, at, after=None):
    asked.append((job, dict(configs)))
    for name, config in configs.items():
      records.save_json(result(job, name, config), folder / name / RESULTS[job])
    results = {name: read_result(folder / name, job) for name in configs}
    if after:
      after(results)
    return results

  monkeypatch.setattr(side_by_side, 'run_each', run_each)
  monkeypatch.setattr(emoji.times, 'sizes_and_times', lambda configs, _: {'plain': {'parameters': 1234}})
  monkeypatch.setattr(emoji_arms.arms, 'widened', lambda keywords, *_: (20, 40, 80, 160))
  monkeypatch.setattr(emoji_arms.arms, 'parameters', lambda *_: 1)
  return asked


def test_nothing_is_chosen_on_the_test_styles(experiment, calls):
  emoji.run(experiment)
  for job, configs in calls:
    for name, config in configs.items():
      if name.startswith('rates/'):
        assert config.data.test_styles == 'training' and config.train.steps == 10, name
        assert config.seed not in range(experiment.seeds)
      else:
        assert config.data.test_styles == 'unseen' and job in ('train', 'recall', 'validate', 'context')
  kinds = [(job, next(iter(configs)).split('/')[0]) for job, configs in calls]
  # Two seeds of S, of 2 S and of the variations, each whole before the next.
  lengths = [
    (job, str(steps)) for steps in (40, 40, 80, 80, 40, 40) for job in ('train', 'validate', 'context')
  ]
  assert kinds == [('train', 'rates'), ('train', '40'), ('recall', '40'), *lengths]


def test_each_arm_has_the_rate_of_its_family_and_what_its_name_says(experiment, calls):
  emoji.run(experiment)
  runs = {name: config for job, configs in calls if job == 'train' for name, config in configs.items()}
  for name, config in runs.items():
    length, arm, last = name.split('/')
    if length != 'rates':
      assert config.optimizer.learning_rate == (2e-3 if arm.startswith('plain') else 5e-4)
      assert config.train.steps == int(length) and config.seed == int(last[-1])
      assert config.optimizer.warmup_steps == int(length) // 20
  of = lambda arm: runs[f'40/{arm}/seed-1']
  everything = (1000,) * 3
  assert {arm: of(arm).model.class_counts for arm in ('naive', *emoji_arms.LADDER)} == dict.fromkeys(
    ('naive', *emoji_arms.LADDER), everything
  )
  assert all(of(arm).model.class_counts == COUNTS for arm in emoji_arms.SELECTING)
  assert of('rerank').model.class_selection == 'rerank'
  assert of('reduction-warmup').train.class_counts_warmup and not of('reduction').train.class_counts_warmup
  assert of('plain-wide').model.dims == (20, 40, 80, 160)
  assert [of(arm).loss.alpha for arm in ('cosine', 'losses', 'naive')] == [0.0, 0.15, 0.15]
  assert [of(arm).model.ablate for arm in ('losses', 'sampling', 'kernel', 'naive')] == [
    ('offsets', 'mask', 'kernel_delta', 'context'),
    ('kernel_delta', 'context'),
    ('context',),
    (),
  ]
  looked_at = {name.split('/')[1] for job, configs in calls if job == 'context' for name in configs}
  assert looked_at == {'naive', *emoji_arms.SELECTING, *VARIATIONS}
  assert of('rerank-contrast').model.merge_contrast and not of('rerank').model.merge_contrast
  for name, (arm, fields, _) in VARIATIONS.items():
    same = of(name)
    for path in fields:
      group, field = path.split('.')
      assert same[group][field] != of(arm)[group][field]
      same[group][field] = of(arm)[group][field]
    assert same == of(arm)


def test_evidence(experiment, calls, capsys):
  evidence = emoji.run(experiment)
  assert (experiment.workdir / 'evidence.md').read_text() in capsys.readouterr().out
  stored = json.loads((experiment.workdir / 'evidence.json').read_text())
  assert stored == json.loads(json.dumps(records.plain(evidence)))
  assert stored['runs']['80']['rerank']['context'] == [{'rows': {'own': {}}}] * 2
  text = (experiment.workdir / 'evidence.md').read_text()
  rows = [line for line in text.splitlines() if line.startswith('| plain |')]
  assert len(rows) == 3 and rows[0].startswith('| plain | 2 | 25.5 ± 0.7 | 25.5 ± 0.7 | ')
  assert '1,234' in rows[0]
  assert (
    '| rerank: contexts of what sets the considered classes apart | 35.5 ± 0.7 | 35.5 ± 0.7 | +0.0 ' in text
  )
  assert '| +0.0 (+0.0 to +0.0) than naive |' in text
  # Both seeds differ by as much: an interval of no width.
  assert '| naive less plain-wide | +10.0 (+10.0 to +10.0) |' in text
  assert '| the kernel branch, without a context | 35.5 ± 0.7 | +0.0 (+0.0 to +0.0) |' in text
  assert text.index('## 40 steps') < text.index('## 80 steps') < text.index('one part at a time')


def test_seeds_are_paired_by_number(experiment):
  """Also while an arm lacks one that the other has: runs side by side do not end in order."""
  for arm, accuracies in {'plain': {0: 0.1, 1: 0.5}, 'plain-wide': {1: 0.6}}.items():
    for seed, accuracy in accuracies.items():
      folder = experiment.workdir / f'40/{arm}/seed-{seed}'
      records.save_json({'accuracy': accuracy}, folder / RESULTS['train'])
  evidence = emoji_tables.write(experiment, {}, COUNTS, {})
  assert evidence['runs'][40]['plain']['seeds'] == [0, 1]
  assert '| plain-wide less plain | +10.0 |' in emoji_tables.markdown(evidence)


def test_difference_is_paired_and_has_students_interval():
  # 1, 2 and 3 points: mean 2, deviation 1, 4.303 / sqrt(3) of it either way.
  assert emoji_tables.difference((0.31, 0.42, 0.53), (0.3, 0.4, 0.5)) == '+2.0 (-0.5 to +4.5)'
  assert emoji_tables.difference((0.31,), (0.3,)) == '+1.0'


def test_percent():
  assert emoji_tables.percent([0.5, 0.6]) == '55.0 ± 7.1' and emoji_tables.percent([0.5]) == '50.0'
  assert emoji_tables.percent([]) == ''
