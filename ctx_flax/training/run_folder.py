"""The folder of a run: config.json, checkpoints/, metrics.jsonl, events/. It belongs to one config."""

import json
import os
import pathlib
from typing import Any

from ctx_flax import files
from ctx_flax.configs import default
from ctx_flax.configs import saved as saved_config

# What a run is: another value in one of these groups (or single fields) computes something else. A task names
# its own groups besides.
IDENTITY = 'seed', 'task', 'model', 'init', 'optimizer', 'train', 'data', 'eval.crop_ratio'
# But for these fields in them, which change nothing about what is computed (up to rounding): how the work is
# divided, what is shown, what is kept and where the data lie.
FREE_FIELDS = (
  *('model.remat', 'model.depthwise_path'),
  *('train.deterministic', 'train.log_every', 'train.eval_every', 'train.keep_best'),
  *('train.checkpoint_every', 'train.checkpoint_minutes', 'train.keep_checkpoints'),
  *('data.path', 'data.train_list', 'data.test_list', 'data.train_annotations', 'data.test_annotations'),
  *('data.threads', 'data.workers', 'data.prefetch'),
)
# Of no concern to a run: the machine, how it is tested, and what only other modes read.
FREE_GROUPS = (
  *('compilation_cache', 'profile', 'eval', 'check', 'probe', 'recall', 'sweep', 'predict'),
  *('grad_cam', 'failures', 'offsets', 'context', 'report', 'export'),
)


def is_identity(name: str, groups: tuple[str, ...] = ()) -> bool:
  """Whether a field, 'optimizer.eps', is part of what a run is.

  Args:
    name: of the field.
    groups: those that the task names.
  """
  if name in FREE_FIELDS:
    return False
  return any(name == group or name.startswith(f'{group}.') for group in (*IDENTITY, *groups))


def check(workdir: str | os.PathLike[str], config: Any, groups: tuple[str, ...] = ()) -> None:
  """Returns if the folder is new or holds a run of this config; fields that are not its identity may differ.

  A field that the saved config lacks has its default: it was written before the field existed.

  Raises:
    ValueError: the folder holds another config (the fields are listed), or checkpoints of an unknown one, or
      has a name that is not UTF-8. Nothing is touched.
  """
  absolute = str(pathlib.Path(workdir).absolute())
  if files.utf8(absolute) != absolute:
    raise ValueError(
      f'{files.printable(absolute)} is a name that is not UTF-8, and orbax saves no checkpoints in such a '
      'folder: take another --workdir'
    )
  if pathlib.Path(workdir).exists() and not pathlib.Path(workdir).is_dir():
    raise ValueError(f'{workdir} is not a folder: take another --workdir')
  there = saved(workdir)
  if there is None:
    if any(pathlib.Path(workdir).glob('checkpoints/*')):
      raise ValueError(f'{workdir} holds checkpoints but no config.json: take another --workdir')
    return
  there = _flat(there)
  here = _flat(json.loads(_text(config)))
  there = default_fields(there.get('task', 'classification'), here) | there
  differing = [
    f'{name} is {_shown(there, name)} there and {_shown(here, name)} here'
    for name in sorted(there.keys() | here.keys())
    if is_identity(name, groups) and _shown(there, name) != _shown(here, name)
  ]
  if differing:
    raise ValueError(
      f'{workdir} holds a run of another config: {"; ".join(differing)}; take another --workdir'
    )


def default_fields(task: str, names: Any) -> dict[str, Any]:
  """{name: default} of those of the named fields that the default config of a task has."""
  defaults = _flat(json.loads(_text(default.get_config(task=task))))
  return {name: defaults[name] for name in names if name in defaults}


def saved(workdir: str | os.PathLike[str]) -> dict[str, Any] | None:
  """The config.json of a folder as nested dicts, or None where there is none; ValueError if it is damaged."""
  path = pathlib.Path(workdir) / 'config.json'
  return saved_config.read(path) if path.exists() else None


def with_saved(workdir: str | os.PathLike[str], field: str) -> Any:
  """The config saved in a folder that `field` of another config names; what it lacks has its default.

  Raises:
    ValueError: there is no config.json, it is damaged, or it holds a field that the config does not know.
  """
  if saved(workdir) is None:
    raise ValueError(
      f'{field} is {str(workdir)!r}, which holds no config.json: it is not the folder of a run'
    )
  return saved_config.get_config(str(workdir))


def claim(workdir: str | os.PathLike[str], config: Any) -> None:
  """Makes the folder and writes the config into it, atomically: a killed start leaves no half of one."""
  files.write_text(pathlib.Path(workdir) / 'config.json', _text(config))


def fields(config: Any) -> dict[str, Any]:
  """The dotted names of all fields of a config, {name: value}."""
  return _flat(json.loads(_text(config)))


def _text(config):
  return json.dumps(config.to_dict(), indent=2) + '\n'


def _flat(tree, prefix=''):
  flat: dict = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      flat |= _flat(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat


def _shown(fields, name):
  return json.dumps(fields[name]) if name in fields else 'absent'
