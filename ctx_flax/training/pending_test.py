"""The test that a stopped run still owes: the line of metrics.jsonl that waits for its results."""

import json
import os
import pathlib

from ctx_flax import files

NAME = 'pending_test.json'


def write(workdir: str | os.PathLike[str], step: int, line: dict[str, float]) -> None:
  """Keeps the values of a step, {name: float}, that was saved before its test was done."""
  files.write_text(pathlib.Path(workdir) / NAME, json.dumps({'step': step, 'line': line}) + '\n')


def read(workdir: str | os.PathLike[str], step: int) -> dict[str, float] | None:
  """The values of a step whose test is owed, None if it is not; what is owed to another step is void."""
  try:
    owed = json.loads((pathlib.Path(workdir) / NAME).read_text(encoding='utf-8'))
    return owed['line'] if owed['step'] == step else None
  except (FileNotFoundError, ValueError, TypeError, KeyError):
    return None


def remove(workdir: str | os.PathLike[str]) -> None:
  """Forgets the owed test."""
  (pathlib.Path(workdir) / NAME).unlink(missing_ok=True)
