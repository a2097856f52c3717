"""The config of a run: --config=configs/saved.py:RUN reads RUN/config.json; overrides still apply."""

import json
import pathlib
from typing import Any

from ctx_flax.configs import default, paths
from ctx_flax.nearest import nearest


def get_config(run: str = '') -> Any:
  """Returns the config saved in the folder `run`; fields that it lacks have the defaults of its task.

  A config that was saved before there were tasks is one of classification. `~` in the folder is expanded.

  Raises:
    ValueError: there is no such file, it is damaged, or it holds a field that its task does not know, or a
      value of another type.
  """
  path = pathlib.Path(run).expanduser() / 'config.json'
  if not run or not path.is_file():
    raise ValueError(f'{path} does not exist: {run!r} is not the folder of a run (start one with --config)')
  saved = read(path)
  try:
    config = default.get_config(task=str(saved.get('task', 'classification')))
    _update(config, saved)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None
  return config


def read(path: pathlib.Path) -> dict[str, Any]:
  """Returns the content of a config.json, nested dicts; a ValueError of one line if it is damaged."""
  try:
    saved = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:  # no UTF-8 either
    raise ValueError(f'{path} is not valid JSON: {error}') from None
  except OSError as error:
    raise ValueError(f'{path} cannot be read: {error}') from None
  if not isinstance(saved, dict):
    raise ValueError(f'{path} holds no JSON object: it is not the config of a run')
  return saved


def _update(config, saved):
  groups = {path.rpartition('.')[0] for path, _ in paths.leaves(config)} - {''}
  fields = dict(paths.leaves(config))
  for path, value in paths.leaves(saved):
    if path not in fields:
      if path in groups:
        raise ValueError(f'{path} must be a group of fields, but is {value!r}')
      group, _, name = path.rpartition('.')
      near = nearest(name, paths.get(config, group)) if group in groups else nearest(path, fields)
      raise ValueError(f'unknown config field {path!r}{near}')
    try:
      paths.put(config, path, tuple(value) if isinstance(value, list) else value)  # JSON knows no tuples
    except TypeError:
      kind = type(fields[path]).__name__
      raise ValueError(f'{path} is {value!r}, which is not of type {kind}') from None
