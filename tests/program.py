"""Starting main.py as a user would, with so many CPU devices."""

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
# Arguments that make a recipe for ImageNet a run of a minute.
TINY = (
  '--config.model.depths=(1,1,1,1)',
  '--config.model.embed_dim=32',
  '--config.train.batch_size=16',
  '--config.train.steps=4',
  '--config.train.log_every=1',
  '--config.train.eval_every=2',
  '--config.train.checkpoint_every=2',
  '--config.eval.batch_size=16',
  '--config.optimizer.warmup_epochs=0.5',
  '--config.data.image_size=64',
  '--config.data.workers=1',
)
CONVNEXT_TINY = (
  '--config.model.dims=(16,32,48,64)',
  '--config.model.remat=True',
  '--config.train.accumulation=2',
  '--config.train.class_counts_warmup=0.5',
  '--config.train.on_nan=skip',
  '--config.train.deterministic=True',
  '--config.optimizer.clip_norm=1.0',
  "--config.optimizer.groups=(('contextualizer/.*', 1.0, 1.0), ('(?!contextualizer/).*', 0.5, 2.0))",
)
RESNET_TINY = ('--config.model.dims=(8,8,8,8)',)
# Tests a run as one of two processes, and prints all digits of the results.
EVALUATE = """
import json, sys
from ctx_flax.configs import saved
from ctx_flax.tasks import run
from ctx_flax.training import distributed

changes, workdir, address, process = sys.argv[1:]
distributed.join(address, 2, int(process))
config = saved.get_config(workdir)
config.update_from_flattened_dict(json.loads(changes))
print(json.dumps(run.evaluate(config, workdir)))
"""


def start(*arguments, devices=1, program=('main.py',)):
  """The running program, or another one in Python, in the root of the project."""
  environment = os.environ | {'JAX_NUM_CPU_DEVICES': str(devices)}
  command = [sys.executable, *program, *arguments]
  pipe = subprocess.PIPE
  return subprocess.Popen(
    command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True, encoding='utf-8'
  )


def run(*arguments, devices=1):
  """(exit status, standard output, standard error) of the program."""
  process = start(*arguments, devices=devices)
  written, errors = process.communicate()
  return process.returncode, written, errors


def free_address():
  """'localhost:PORT' with a port that is free, where the processes of a run can find each other."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return f'localhost:{free.getsockname()[1]}'


def read_until(process, wanted):
  """Reads the program's output up to the first line that holds `wanted`, and returns it."""
  for line in process.stdout:
    if wanted in line:
      return line
  raise AssertionError(f'ended without {wanted!r}: {process.stderr.read()}')
