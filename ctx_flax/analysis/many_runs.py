"""Trains several runs, one after the other; killed at any moment, it goes on where it was."""

import json
import pathlib

import jax

from ctx_flax import files
from ctx_flax.analysis.records import plain
from ctx_flax.tasks import run, task_of
from ctx_flax.training import run_folder
from ctx_flax.training.halt import failed_report

RESULT = 'result.json'


def train_each(configs, folder, after=None):
  """Trains a run for each config, in order, unless it is finished already.

  Each is a run like any other, in its own folder, and can be looked at by itself.

  Args:
    configs: {name: config}; a name is the run's folder below `folder` and may have slashes.
    folder: holds the runs' folders.
    after: called with all results so far after every run, {name: metrics}.

  Returns:
    {name: metrics}: the test metrics {name: float} of the averaged weights, or of the raw ones where the run
    keeps no others.

  Raises:
    Halt: what training raises; finished runs stay, and the same call goes on behind them.
  """
  folder = pathlib.Path(folder)
  results: dict[str, dict] = {}
  for number, (name, config) in enumerate(configs.items(), 1):
    path = folder / name / RESULT
    result = read_result(path)
    if result:
      run_folder.check(folder / name, config, task_of(config).identity)
      results[name] = result
    else:
      print(f'run {number} of {len(configs)}: {files.printable(name)}', flush=True)
      tested = run.train(config, folder / name)
      results[name] = plain(tested.get('EMA', tested['raw']))
      with failed_report(path):
        files.write_text(path, json.dumps(results[name], indent=2) + '\n')
      # A program of each run would stay in memory for ever.
      jax.clear_caches()
    if after:
      after(results)
  return results


def read_result(path):
  """The metrics that a finished run left; {} if it is not finished or they are damaged."""
  if not path.exists():
    return {}
  try:
    result = json.loads(path.read_text(encoding='utf-8'))
  except ValueError:
    result = None
  if not isinstance(result, dict):
    print(f'{files.printable(path)} is damaged: the run is tested again', flush=True)
    return {}
  return result
