"""Contextual against plain tiny networks, several seeds.

python -m experiments patches|glyphs|digits
  trains a naive run, takes the class counts from its recall curves, and trains every arm with every seed
  under the same recipe and steps.
python -m experiments emoji --data-path=DIR
  chooses learning rates and class counts on validation images, and trains every arm with every seed for S and
  for 2 S steps, a ladder from plain to contextual, and variations of single settings; measures what the
  contexts of the contextual runs are worth. DIR is what `python -m ctx_flax.data.prepare emoji DIR` wrote.

Both time a step of each arm in turn, and write evidence.json and evidence.md as runs end. If they are
interrupted, the same command resumes them. The results are in docs/evidence.md.
"""

import argparse
import pathlib
import sys

import numpy as np

from ctx_flax import files
from ctx_flax.analysis import alpha_sweep, records
from ctx_flax.data import sources
from ctx_flax.tasks.classification.results import stages
from ctx_flax.training import setup
from ctx_flax.training.halt import Halt, bad_input
from ctx_flax.training.repeats import mean_and_deviation
from ctx_flax.training.run_lock import RunLock
from experiments import arms, emoji, emoji_arms, side_by_side, times

SWEPT = 'reduction-warmup'  # the arm whose alpha is swept


def main(arguments=None):
  chosen = parse(arguments)
  try:
    with bad_input():
      at = side_by_side.places(chosen.side_by_side)
      if chosen.data == 'emoji':
        sizes = chosen.size, chosen.steps or emoji_arms.STEPS, chosen.seeds
        experiment = emoji_arms.Experiment(chosen.data_path, chosen.workdir, *sizes, tuple(at))
        sources.open_source(
          emoji_arms.base_config(experiment).data, 'train'
        )  # not only when the first run fails
    with RunLock(chosen.workdir):
      if chosen.data == 'emoji':
        emoji.run(experiment, chosen.rounds)
      else:
        run(chosen, at)
  except KeyboardInterrupt:
    sys.exit('ended early: the same command goes on')
  except Halt as halt:
    print(f'error: {halt}', file=sys.stderr)
    sys.exit(halt.status)


def parse(arguments):
  parser = argparse.ArgumentParser(
    prog='python -m experiments', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('data', choices=[*arms.DATA, 'emoji'])
  parser.add_argument('--data-path', type=pathlib.Path, help='emoji: the folder of the pictures')
  parser.add_argument(
    '--size', type=int, default=32, choices=emoji_arms.STEM_STRIDES, help='emoji: side of the images'
  )
  parser.add_argument(
    '--arms', nargs='+', choices=arms.ARMS, default=list(arms.ARMS), help='not for emoji; default: all'
  )
  parser.add_argument(
    '--seeds', type=int, default=0, help='runs of each arm, seeds 0, 1, ...; default 5, emoji 3'
  )
  parser.add_argument(
    '--steps',
    type=int,
    default=0,
    help='of every run, for emoji S; default: as in experiments/{arms,emoji}.py',
  )
  parser.add_argument(
    '--side-by-side',
    type=int,
    default=0,
    help='runs at a time; default: one on each GPU, without GPUs one; several share the cores',
  )
  parser.add_argument(
    '--warmup-epochs', type=float, help='of the learning rate, not for emoji; default: as in the file'
  )
  parser.add_argument(
    '--alpha-sweep', action='store_true', help=f'instead: {SWEPT} with several alphas; not for emoji'
  )
  parser.add_argument('--rounds', type=int, default=5, help='of timing the steps; 0 leaves it out')
  parser.add_argument('--workdir', type=pathlib.Path, help='default: runs/evidence/DATA')
  chosen = parser.parse_args(arguments)
  for name in ('seeds', 'steps', 'side_by_side', 'rounds'):
    if getattr(chosen, name) < 0:
      parser.error(f'--{name.replace("_", "-")} must be 0 or more, but is {getattr(chosen, name)}')
  if chosen.data == 'emoji' and chosen.data_path is None:
    parser.error('emoji needs --data-path: the folder that `python -m ctx_flax.data.prepare emoji DIR` wrote')
  if chosen.data == 'emoji':
    for name in ('arms', 'warmup_epochs', 'alpha_sweep'):
      if getattr(chosen, name) != parser.get_default(name):
        parser.error(f'--{name.replace("_", "-")} is not for emoji')
    if 0 < chosen.steps < emoji_arms.FEWEST_STEPS:
      parser.error(f'--steps must be {emoji_arms.FEWEST_STEPS} or more for emoji, but is {chosen.steps}')
  chosen.seeds = chosen.seeds or (emoji_arms.SEEDS if chosen.data == 'emoji' else 5)
  name = f'emoji-{chosen.size}' if chosen.data == 'emoji' else chosen.data
  chosen.workdir = chosen.workdir or pathlib.Path('runs/evidence') / name
  return chosen


def run(chosen, at):
  """Trains, times and writes what the chosen options say; returns what evidence.json, or the sweep, holds.

  Args:
    chosen: the options.
    at: the places where runs run.
  """
  base = arms.base_config(chosen.data, chosen.steps, chosen.warmup_epochs)
  setup.prepare_jax(base)
  naive = {'naive/seed-0': arms.arm_config('naive', base)}
  side_by_side.run_each('train', naive, chosen.workdir, at)
  # In another process: this one then holds no GPU's memory.
  suggested = side_by_side.run_each('recall', naive, chosen.workdir, at)['naive/seed-0']
  counts = tuple(suggested['all'])
  print(f'class counts by the recall curves: {counts}', flush=True)
  if chosen.alpha_sweep:
    swept = arms.arm_config(SWEPT, base, counts)
    swept.sweep.update(field='loss.alpha', seeds=chosen.seeds)
    return alpha_sweep.alpha_sweep(swept, chosen.workdir)
  of_arm = {name: arms.arm_config(name, base, counts) for name in chosen.arms}
  # Seeds outermost: stopped at any time, all arms have as many, but for one.
  configs = {}
  for seed in range(chosen.seeds):
    for name, config in of_arm.items():
      one = config.copy_and_resolve_references()
      one.seed = seed
      configs[f'{name}/seed-{seed}'] = one
  evidence = {'data': chosen.data, 'steps': base.train.steps, 'counts': counts, 'recall': suggested}

  def after(results):
    evidence['arms'] = {name: summary(name, results) for name in of_arm if f'{name}/seed-0' in results}
    write(evidence, chosen.workdir)

  side_by_side.run_each('train', configs, chosen.workdir, at, after)
  for name, facts in times.sizes_and_times(of_arm, chosen.rounds).items():
    evidence['arms'][name] |= facts
  write(evidence, chosen.workdir)
  print(markdown(evidence), flush=True)
  return evidence


def summary(name, results):
  """What the finished runs of an arm came to: {'seeds', 'accuracy', 'accuracy_by_stage', 'recall'}."""
  finished = [metrics for run_name, metrics in results.items() if run_name.startswith(f'{name}/')]
  mean = lambda field: float(np.mean([metrics[field] for metrics in finished]))
  return {
    'seeds': len(finished),
    'accuracy': [metrics['accuracy'] for metrics in finished],
    'accuracy_by_stage': {s: mean(f'accuracy{s}') for s in stages(finished[0])},
    'recall': {s: mean(f'recall{s}') for s in (2, 3, 4) if f'recall{s}' in finished[0]},
  }


def write(evidence, workdir):
  records.save_json(evidence, workdir / 'evidence.json')
  files.write_text(workdir / 'evidence.md', markdown(evidence))


def markdown(evidence):
  """The table of the arms."""
  lines = [
    f'{evidence["data"]}, {evidence["steps"]} steps, class counts {tuple(evidence["counts"])}',
    '',
    '| network | seeds | accuracy % | stages 1-4 % | kept to 2, 3, 4 % | parameters | ms per step |',
    '|---|---|---|---|---|---|---|',
  ]
  percents = lambda values: ', '.join(f'{100 * value:.1f}' for value in values)
  for name, arm in evidence['arms'].items():
    mean, deviation = mean_and_deviation(arm['accuracy'])
    accuracy = f'{100 * mean:.1f}' + ('' if np.isnan(deviation) else f' ± {100 * deviation:.1f}')
    by_stage = percents(arm['accuracy_by_stage'].values()) if len(arm['accuracy_by_stage']) > 1 else ''
    timed = f'{1000 * arm["seconds_per_step"]:.0f}' if 'seconds_per_step' in arm else ''
    size = f'{arm["parameters"]:,}' if 'parameters' in arm else ''
    cells = (arms.ARMS[name], arm['seeds'], accuracy, by_stage, percents(arm['recall'].values()), size, timed)
    lines.append(f'| {" | ".join(map(str, cells))} |')
  return '\n'.join(lines) + '\n'


if __name__ == '__main__':
  main()
