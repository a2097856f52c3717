"""Trains and evaluates contextual convolutional networks: main.py of the project, from any folder.

python -m ctx_flax --config=my_recipe.py --workdir=RUN     train; the same again resumes
python -m ctx_flax --mode=evaluate --workdir=RUN           test a run; its config is in its folder
A recipe is a file with get_config(argument=''), which starts from ctx_flax.configs.default.get_config().
"""

import os
import pkgutil
import sys

try:
  from absl import app, flags, logging
  from ml_collections import config_flags
except ImportError as error:
  sys.exit(f"error: {error.name} is not installed: training needs pip install 'ctx-flax[train]'")

from ctx_flax.configs import command_line

# Functions (config, workdir), by name: a bad flag is reported immediately, before jax is imported.
MODES = {
  'train': 'ctx_flax.tasks.run:train',
  'evaluate': 'ctx_flax.tasks.run:evaluate',
  'check': 'ctx_flax.tasks.run:check',
  'export': 'ctx_flax.downstream.export:export',
  'linear_probe': 'ctx_flax.downstream.linear_probe:linear_probe',
  'recall_curves': 'ctx_flax.analysis.recall_curves:recall_curves',
  'alpha_sweep': 'ctx_flax.analysis.alpha_sweep:alpha_sweep',
  'predict': 'ctx_flax.analysis.predict:predict',
  'grad_cam': 'ctx_flax.analysis.grad_cam:grad_cam',
  'failures': 'ctx_flax.analysis.failures:failures',
  'offsets': 'ctx_flax.analysis.offsets:offsets',
  'context': 'ctx_flax.analysis.context_use:context_use',
  'report': 'ctx_flax.analysis.report:report',
}
# What runs of a task have instead. A mode that serves other tasks alone says so.
TASK_MODES = {
  'detection': {
    'predict': 'ctx_flax.analysis.detector_predict:predict',
    'export': 'ctx_flax.downstream.detector_export:export',
    'failures': 'ctx_flax.analysis.detector_failures:failures',
    'report': 'ctx_flax.analysis.detector_report:report',
  },
}
CONFIG = config_flags.DEFINE_config_file('config', help_string='configs/RECIPE.py[:VARIANT,NAME=VALUE]')
WORKDIR = flags.DEFINE_string('workdir', '', 'Folder of the run; by default runs/RECIPE[-VARIANT].')
COORDINATOR = flags.DEFINE_string('coordinator_address', '', 'HOST:PORT of process 0, in a run of several.')
PROCESSES = flags.DEFINE_integer('num_processes', 0, 'How many processes the run has.')
PROCESS = flags.DEFINE_integer('process_id', -1, 'Which of them this is, from 0.')
MODE = flags.DEFINE_enum('mode', 'train', list(MODES), 'What to do.')


def run() -> None:
  """Runs the mode that sys.argv names, and ends the process with the mode's status."""
  app.run(main, flags_parser=parse_flags)


def main(_):
  from ctx_flax.training import distributed
  from ctx_flax.training.halt import Halt

  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.FATAL)  # libraries also log every exception at length
  workdir = WORKDIR.value or command_line.default_workdir()
  try:
    distributed.join(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    with distributed.lost_processes():
      pkgutil.resolve_name(mode_of(MODE.value, CONFIG.value.task))(CONFIG.value, workdir)
  except Halt as halt:
    logging.info('Where it was raised (--verbosity=0):', exc_info=True)
    fail(halt, halt.status, at_once=distributed.joined())


def mode_of(name, task):
  """Where the function of a mode lies that runs of a task have."""
  return TASK_MODES.get(task, {}).get(name, MODES[name])


def parse_flags(argv):
  try:
    rest = command_line.parse(argv)
    if not CONFIG.value:
      raise ValueError('give --config=configs/RECIPE.py, or --workdir=RUN to take the config of a run')
    return rest
  except ValueError as error:
    fail(error, 2)


def fail(reason, status, at_once=False):
  print(f'error: {reason}', file=sys.stderr, flush=True)
  sys.stdout.flush()
  if at_once:  # the usual way waits for the other processes, which wait for this one
    os._exit(status)
  sys.exit(status)


if __name__ == '__main__':
  run()
