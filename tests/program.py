"""Starting main.py as a user would, with so many CPU devices."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def start(*arguments, devices=1):
  """The running program, in the root of the project."""
  environment = os.environ | {'JAX_NUM_CPU_DEVICES': str(devices)}
  command = [sys.executable, 'main.py', *arguments]
  pipe = subprocess.PIPE
  return subprocess.Popen(
    command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True, encoding='utf-8'
  )


def run(*arguments, devices=1):
  """(exit status, standard output, standard error) of the program."""
  process = start(*arguments, devices=devices)
  written, errors = process.communicate()
  return process.returncode, written, errors


def read_until(process, wanted):
  """Reads the program's output up to the first line that holds `wanted`, and returns it."""
  for line in process.stdout:
    if wanted in line:
      return line
  raise AssertionError(f'ended without {wanted!r}: {process.stderr.read()}')
