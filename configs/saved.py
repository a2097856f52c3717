"""The config of a run: --config=configs/saved.py:RUN reads RUN/config.json; overrides still apply."""

import json
import pathlib

from configs import default


def get_config(run=''):
  """Returns the config saved in the folder `run`, fields that it lacks as in default.py.

  Raises:
    ValueError: there is no such file, it is damaged, or it holds a field that default.py does not know.
  """
  path = pathlib.Path(run) / 'config.json'
  if not run or not path.is_file():
    raise ValueError(f'{path} does not exist: {run!r} is not the folder of a run (start one with --config)')
  try:
    saved = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{path} is not valid JSON: {error}') from None
  if not isinstance(saved, dict):
    raise ValueError(f'{path} holds {type(saved).__name__}, not the fields of a config')
  config = default.get_config()
  _update(config, saved, path, '')
  return config


def _update(config, saved, path, prefix):
  for name, value in saved.items():
    if name not in config:
      raise ValueError(f'{path}: unknown config field {prefix + name!r}{default.nearest(name, config)}')
    if isinstance(value, dict) != hasattr(config[name], 'items'):
      raise ValueError(f'{path}: {prefix + name} must {"not " if isinstance(value, dict) else ""}be a group')
    if isinstance(value, dict):
      _update(config[name], value, path, f'{prefix}{name}.')
      continue
    try:
      config[name] = tuple(value) if isinstance(value, list) else value  # JSON knows no tuples
    except (TypeError, ValueError):
      kind = type(config[name]).__name__
      raise ValueError(f'{path}: {prefix + name} is {value!r}, but must be of type {kind}') from None
