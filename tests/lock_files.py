"""The lock of a run's folder, as another process would have left it."""

import dataclasses
import json
import os

from ctx_flax.training import run_lock
from ctx_flax.training.run_lock import RunLock


def write_lock(folder, age=0.0, **fields):
  """Writes the lock of this process, with other fields, and a heartbeat so many seconds ago."""
  folder.mkdir(exist_ok=True)
  own = RunLock(folder)._own
  fields = run_lock._fields(dataclasses.replace(own, token='of-before', **fields))
  write(folder / 'lock.json', json.dumps(fields), age)


def write(path, text, age):
  path.write_text(text)
  renewed = path.stat().st_mtime - age
  os.utime(path, (renewed, renewed))
