"""The tables of the experiments on emoji, from the results that are there."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctx_flax import files
from ctx_flax.analysis import records
from ctx_flax.training.repeats import mean_and_deviation
from experiments import emoji_arms
from experiments.emoji_variations import VARIATIONS
from experiments.results import read_result

LEVEL = 0.95  # of the intervals
# Pairs of arms whose difference is of interest: the first less the second.
DIFFERENCES = (
  *(('plain-wide', 'plain'), ('naive', 'plain-wide'), ('reduction-warmup', 'naive'), ('rerank', 'naive')),
  *(('reduction-warmup', 'plain-wide'), ('rerank', 'plain-wide')),
)
STEPS_OF_LADDER = ('plain', *emoji_arms.LADDER, 'naive', 'reduction-warmup', 'rerank')


def write(
  experiment: emoji_arms.Experiment, rates: dict[str, float], counts: tuple[int, ...], more: dict[str, Any]
) -> dict[str, Any]:
  """Writes evidence.json and evidence.md of an experiment; returns what the first holds.

  Args:
    experiment: whose folder holds the runs.
    rates: {family: learning rate}, as chosen.
    counts: N_2, N_3, N_4.
    more: {arm: {'parameters', 'dims', 'seconds_per_step'}}, as far as known.
  """
  evidence: dict[str, Any] = {
    'size': experiment.size,
    'steps': experiment.steps,
    'counts': counts,
    'rates': rates,
    'arms': more,
    'runs': {
      steps: {name: arm for name in names if (arm := _arm(experiment, steps, name))}
      for steps, names in (
        (experiment.steps, (*emoji_arms.COMPARED, *emoji_arms.LADDER, *VARIATIONS)),
        (2 * experiment.steps, tuple(emoji_arms.COMPARED)),
      )
    },
  }
  records.save_json(evidence, experiment.workdir / 'evidence.json')
  files.write_text(experiment.workdir / 'evidence.md', markdown(evidence))
  return evidence


def _arm(experiment, steps, name):
  """{'seeds': [trained ones], job: [results of these]}; {} if there are none."""
  folder = experiment.workdir / f'{steps}/{name}'
  seeds = [seed for seed in range(experiment.seeds) if read_result(folder / f'seed-{seed}', 'train')]
  found = {
    job: [result for seed in seeds if (result := read_result(folder / f'seed-{seed}', job))]
    for job in ('train', 'validate', 'context')
  }
  return {name: values for name, values in {'seeds': seeds, **found}.items() if values}


def markdown(evidence: dict[str, Any]) -> str:
  """All tables of the evidence."""
  counts = tuple(evidence['counts'])
  lines = [f'emoji at {evidence["size"]} pixels, class counts {counts}, rates {evidence["rates"]}', '']
  for steps, runs in evidence['runs'].items():
    compared = {name: arm for name, arm in runs.items() if name not in VARIATIONS}
    if compared:
      lines += [f'## {steps} steps', '', *_table(compared, evidence['arms']), '', *_differences(runs), '']
  runs = evidence['runs'][evidence['steps']]
  if any(name in runs for name in emoji_arms.LADDER):
    lines += ['## From plain to contextual, one part at a time', '', *_ladder(runs), '']
  if any(name in runs for name in VARIATIONS):
    lines += ['## One change at a time', '', *_variations(runs), '']
  return '\n'.join(lines)


def _table(runs, more):
  lines = [
    _row(
      *('network', 'seeds', 'unseen styles %', 'training styles %', 'stages 1-4 %', 'kept to 2, 3, 4 %'),
      *('parameters', 'ms per step'),
    ),
    '|---|---|---|---|---|---|---|---|',
  ]
  for name, arm in runs.items():
    tested, facts = arm['train'], more.get(name, {})
    mean = lambda field, tested=tested: np.mean([metrics[field] for metrics in tested])
    stages = [mean(f'accuracy{s}') for s in (1, 2, 3, 4) if f'accuracy{s}' in tested[0]]
    kept = [mean(f'recall{s}') for s in (2, 3, 4) if f'recall{s}' in tested[0]]
    lines.append(
      _row(
        emoji_arms.COMPARED.get(name) or f'ladder: {emoji_arms.LADDER[name]}',
        len(tested),
        percent([metrics['accuracy'] for metrics in tested]),
        percent([metrics['accuracy'] for metrics in arm.get('validate', [])]),
        ', '.join(f'{100 * value:.1f}' for value in stages) if len(stages) > 1 else '',
        ', '.join(f'{100 * value:.1f}' for value in kept),
        f'{facts["parameters"]:,}' if 'parameters' in facts else '',
        f'{1000 * facts["seconds_per_step"]:.0f}' if 'seconds_per_step' in facts else '',
      )
    )
  return lines


def _differences(runs):
  lines = ['| difference | points on the unseen styles |', '|---|---|']
  for first, second in DIFFERENCES:
    if first in runs and second in runs:
      lines.append(_row(f'{first} less {second}', _difference(runs, first, second)))
  return lines


def _ladder(runs):
  lines = ['| network | unseen styles % | points more than the row above |', '|---|---|---|']
  names = [name for name in STEPS_OF_LADDER if name in runs]
  for before, name in zip(['', *names], names, strict=False):
    more = _difference(runs, name, before) if before else ''
    if name == 'rerank' and 'naive' in runs:  # another way to select, not one more part
      more = f'{_difference(runs, name, "naive")} than naive'
    accuracy = percent([metrics['accuracy'] for metrics in runs[name]['train']])
    lines.append(_row(emoji_arms.LADDER.get(name) or emoji_arms.COMPARED[name], accuracy, more))
  return lines


def _variations(runs):
  lines = [
    '| change | training styles % | unseen styles % | points more than without it |',
    '|---|---|---|---|',
  ]
  for name, (arm, _, words) in VARIATIONS.items():
    if name in runs and arm in runs:
      accuracies = (
        percent([metrics['accuracy'] for metrics in runs[name].get(job, [])]) for job in ('validate', 'train')
      )
      lines.append(_row(f'{arm}: {words}', *accuracies, _difference(runs, name, arm)))
  return lines


def _difference(runs, first, second):
  """`difference` of two arms over the seeds that both have; '' if there are none."""
  by_seed = [
    {seed: metrics['accuracy'] for seed, metrics in zip(arm['seeds'], arm['train'], strict=True)}
    for arm in (runs[first], runs[second])
  ]
  pairs = [(accuracy, by_seed[1][seed]) for seed, accuracy in by_seed[0].items() if seed in by_seed[1]]
  return difference(*zip(*pairs, strict=True)) if pairs else ''


def percent(shares: list[float]) -> str:
  """'61.1 ± 0.3', mean and deviation of shares 0..1 in percent; '' of none."""
  if not shares:
    return ''
  mean, deviation = mean_and_deviation(shares)
  return f'{100 * mean:.1f}' + ('' if math.isnan(deviation) else f' ± {100 * deviation:.1f}')


def difference(first: Sequence[float], second: Sequence[float]) -> str:
  """'+1.2 (0.4 to 2.0)': mean difference of paired shares in points, and Student's interval of 95 %."""
  from scipy import stats

  mean, deviation = mean_and_deviation(np.subtract(first, second))
  if math.isnan(deviation):
    return f'{100 * mean:+.1f}'
  half = stats.t.ppf((1 + LEVEL) / 2, len(first) - 1) * deviation / math.sqrt(len(first))
  return f'{100 * mean:+.1f} ({100 * (mean - half):+.1f} to {100 * (mean + half):+.1f})'


def _row(*cells):
  return f'| {" | ".join(map(str, cells))} |'
