"""The experiments on emoji: what is compared, in which order, and what is chosen on which images.

Everything that is chosen is chosen on validation images: other images of the training styles. Finished runs
are tested on the test styles, and nothing is chosen by the results.
"""

from typing import Any

import numpy as np

from experiments import emoji_tables, side_by_side, times
from experiments.emoji_arms import (
  COMPARED,
  LADDER,
  RATES,
  SEED_OF_RATES,
  SELECTING,
  Experiment,
  arm_config,
  base_config,
  family,
  has_context,
)
from experiments.emoji_variations import VARIATIONS, varied
from experiments.results import read_result


def run(experiment: Experiment, rounds: int = 5) -> dict[str, Any]:
  """Does all that is not done yet, and writes the tables as runs end.

  Args:
    experiment: what is done.
    rounds: of timing the steps; 0 leaves it out.

  Returns:
    The content of evidence.json.
  """
  more: dict[str, dict[str, Any]] = {}
  base, folder, at = base_config(experiment), experiment.workdir, experiment.at
  steps, seeds = experiment.steps, range(experiment.seeds)
  rates = _choose_rates(experiment, base)
  naive = 'naive/seed-0'
  config = arm_config('naive', base, steps=steps, seed=0, rate=rates['contextual'])
  side_by_side.run_each('train', {f'{steps}/{naive}': config}, folder, at)
  side_by_side.run_each('recall', {f'{steps}/{naive}': config}, folder, at)
  counts = tuple(read_result(folder / f'{steps}/{naive}', 'recall')['all'])
  write = lambda *_: emoji_tables.write(experiment, rates, counts, more)

  def measured(configs):
    """Trains runs, tests them on the training styles, and measures what their contexts are worth."""
    side_by_side.run_each('train', configs, folder, at, write)
    side_by_side.run_each('validate', configs, folder, at, write)
    contextual = {name: config for name, config in configs.items() if has_context(config)}
    side_by_side.run_each('context', contextual, folder, at, write)

  def made(arm, total, seed):
    return arm_config(arm, base, steps=total, seed=seed, rate=rates[family(arm)], counts=counts)

  # Seeds outermost, each evaluated before the next is trained: an interrupted experiment has whole seeds.
  for total, names in ((steps, (*COMPARED, *LADDER)), (2 * steps, COMPARED)):
    for seed in seeds:
      measured({f'{total}/{name}/seed-{seed}': made(name, total, seed) for name in names})
  for seed in seeds:
    changed = {name: varied(name, made(arm, steps, seed)) for name, (arm, _, _) in VARIATIONS.items()}
    measured({f'{steps}/{name}/seed-{seed}': config for name, config in changed.items()})
  more |= times.sizes_and_times({name: made(name, steps, 0) for name in (*COMPARED, *LADDER)}, rounds)
  evidence = write()
  print(emoji_tables.markdown(evidence), flush=True)
  return evidence


def _choose_rates(experiment, base):
  """{family: the rate with the best accuracy on validation images, mean over its arms that need no counts}.

  One arm alone cannot tell two rates apart after so few steps.
  """
  base = base.copy_and_resolve_references()
  base.data.test_styles = 'training'
  names = [name for name in (*COMPARED, *LADDER) if name not in SELECTING]
  configs = {
    f'rates/{name}/{rate:g}': arm_config(
      name, base, steps=experiment.steps // 4, seed=SEED_OF_RATES, rate=rate
    )
    for name in names
    for rate in RATES[family(name)]
  }
  results = side_by_side.run_each('train', configs, experiment.workdir, experiment.at)

  def accuracy(of, rate):
    return np.mean([results[f'rates/{name}/{rate:g}']['accuracy'] for name in names if family(name) == of])

  return {of: max(rates, key=lambda rate: accuracy(of, rate)) for of, rates in RATES.items()}
