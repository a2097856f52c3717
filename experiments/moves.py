"""python -m experiments.moves    what the temporal shift and the context are worth where time matters

Trains configs/moves.py as plain and as contextual network, with one context per clip and with one per frame,
each with the temporal shift and without it, with several seeds, and writes moves.json and moves.md. Killed
and started again it goes on with the run that it was at. docs/video.md has what came out.
"""

import argparse
import pathlib
import sys

import numpy as np

from configs import moves
from ctx_flax import files
from ctx_flax.analysis import failures, records
from ctx_flax.analysis.many_runs import train_each
from ctx_flax.analysis.run import open_run
from ctx_flax.training.halt import Halt
from ctx_flax.training.repeats import percent

ARMS = {
  'plain': 'plain',
  'plain without shift': 'plain,no_shift',
  'contextual, per clip': '',
  'contextual, per clip, without shift': 'no_shift',
  'contextual, per frame': 'frame',
  'contextual, per frame, without shift': 'frame,no_shift',
}


def main(arguments=None):
  parser = argparse.ArgumentParser(
    prog='python -m experiments.moves',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--arms', nargs='+', choices=ARMS, default=list(ARMS), metavar='ARM', help='default: all'
  )
  parser.add_argument('--seeds', type=int, default=3, help='runs of each arm, seeds 0, 1, ...')
  parser.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/evidence/moves'))
  chosen = parser.parse_args(arguments)
  if chosen.seeds < 1:
    parser.error(f'--seeds must be 1 or more, but is {chosen.seeds}')
  try:
    run(chosen.arms, chosen.seeds, chosen.workdir)
  except Halt as halt:
    print(f'error: {halt}', file=sys.stderr)
    sys.exit(halt.status)


def run(arms, seeds, workdir, base=moves.get_config):
  """{arm: {'accuracy', 'axis': a share per seed}}: of motions, and of their axes whatever the direction."""
  configs = {}
  for seed in range(seeds):  # outermost: stopped at any time, all arms have as many runs, but for one
    for name in arms:
      config = base(ARMS[name])
      config.seed = seed
      configs[f'{folder_of(name)}/seed-{seed}'] = config
  train_each(configs, workdir)
  found = {}
  for name in arms:
    looked_at = []
    for seed in range(seeds):
      path = f'{folder_of(name)}/seed-{seed}'
      looked_at.append(axes(open_run(configs[path], workdir / path)))
    found[name] = {kind: [one[kind] for one in looked_at] for kind in looked_at[0]}
  records.save_json(found, workdir / 'moves.json')
  files.write_text(workdir / 'moves.md', markdown(found))
  print(markdown(found), flush=True)
  return found


def folder_of(arm):
  """The folder of an arm's runs."""
  return ARMS[arm].replace(',', '-') or 'contextual'


def axes(run):
  """{'accuracy', 'axis'} of an open run; classes 2i and 2i + 1 are opposite motions."""
  decided = failures.decisions(run)
  same = lambda divisor: float(np.mean(decided['predicted'] // divisor == decided['label'] // divisor))
  return {'accuracy': same(1), 'axis': same(2)}


def markdown(found):
  """A table; the ratio is 0.5 where the direction is guessed and 1 where it is always right."""
  lines = ['| network | accuracy % | axis % | ratio |', '|---|---|---|---|']
  for name, values in found.items():
    ratio = np.mean(values['accuracy']) / np.mean(values['axis'])
    lines.append(f'| {name} | {percent(values["accuracy"])} | {percent(values["axis"])} | {ratio:.2f} |')
  return '\n'.join(lines) + '\n'


if __name__ == '__main__':
  main()
