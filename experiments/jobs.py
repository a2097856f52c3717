"""What is done with one run of an experiment: it is trained, tested once more, or looked at.

A job reads RUN/config.json and writes its result into RUN whole or not at all.
"""

import pathlib

from ctx_flax.analysis import context_use, recall_curves, records
from ctx_flax.analysis.records import plain
from ctx_flax.analysis.run import open_run
from ctx_flax.tasks import run
from ctx_flax.training import run_folder
from experiments.results import RESULTS


def train(folder):
  """Trains the run; result.json has its test metrics."""
  tested = run.train(_config(folder), folder)
  _write(folder, 'train', tested.get('EMA', tested['raw']))


def validate(folder):
  """Tests the trained run on other images of the training styles; validation.json."""
  tested = run.evaluate(_validation(folder), folder)
  _write(folder, 'validate', tested.get('EMA', tested['raw']))


def recall(folder):
  """The class counts that the recall curves suggest on images of the training styles; recall.json."""
  opened = open_run(_validation(folder), folder)
  _write(folder, 'recall', recall_curves.write(opened)['counts'])


def context(folder):
  """What the run makes of its contexts, on its test images; context.json."""
  found = context_use.write(open_run(_config(folder), folder))
  # What it says by class lies in analysis/context_use.json.
  _write(folder, 'context', {name: found[name] for name in ('rows', 'contexts', 'same_class')})


JOBS = {'train': train, 'validate': validate, 'recall': recall, 'context': context}


def _config(folder):
  return run_folder.with_saved(folder, 'the run')


def _validation(folder):
  config = _config(folder)
  if 'test_styles' in config.data:
    config.data.test_styles = 'training'
  return config


def _write(folder, job, result):
  records.save_json(plain(result), pathlib.Path(folder) / RESULTS[job])
