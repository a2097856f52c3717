"""The folder of a run: config.json, checkpoints/, metrics.jsonl, events/. It belongs to one config."""

import json
import os
import pathlib

# Fields that change nothing about what is computed (up to rounding): where things lie, what is shown, what is
# kept, and how the work is divided.
FREE_FIELDS = (
  *(
    'compilation_cache',
    'profile',
    'model.remat',
    'eval.batch_size',
    'eval.checkpoint',
    'eval.weights',
  ),
  *('train.deterministic', 'train.log_every', 'train.eval_every', 'train.keep_best'),
  *('train.checkpoint_every', 'train.checkpoint_minutes', 'train.keep_checkpoints'),
  *('data.path', 'data.train_list', 'data.test_list', 'data.threads', 'data.workers', 'data.prefetch'),
)

# What only other modes read.
MODES = 'check', 'probe', 'recall', 'sweep', 'predict', 'grad_cam', 'failures', 'offsets', 'report'
FREE_GROUPS = tuple(f'{mode}.' for mode in MODES)


def check(workdir, config):
  """Returns where the folder is new or holds a run of this config; FREE_FIELDS may differ.

  Raises:
    ValueError: the folder holds another config (the fields are listed), or checkpoints of an unknown one.
      Nothing is touched.
  """
  config_there = saved(workdir)
  if config_there is None:
    if any(pathlib.Path(workdir).glob('checkpoints/*')):
      raise ValueError(f'{workdir} holds checkpoints but no config.json: take another --workdir')
    return
  there = _flat(config_there)
  given = _flat(json.loads(_text(config)))
  differing = [
    f'{name} is {_shown(there, name)} there and {_shown(given, name)} here'
    for name in sorted(there.keys() | given.keys())
    if name not in FREE_FIELDS
    and not name.startswith(FREE_GROUPS)
    and _shown(there, name) != _shown(given, name)
  ]
  if differing:
    raise ValueError(
      f'{workdir} holds a run of another config: {"; ".join(differing)}; take another --workdir'
    )


def saved(workdir):
  """The config.json of a folder as nested dicts, or None where there is none; ValueError if it is damaged."""
  path = pathlib.Path(workdir) / 'config.json'
  if not path.exists():
    return None
  try:
    config = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise ValueError(f'{path} is not valid JSON: {error}') from None
  if not isinstance(config, dict):
    raise ValueError(f'{path} holds {type(config).__name__}, not the fields of a config')
  return config


def with_saved(config, workdir, field):
  """A copy of the config with the values of the config.json of a folder, which `field` of the config names.

  Raises:
    ValueError: there is no config.json, it is damaged, or it holds a field that the config does not know.
  """
  there = saved(workdir)
  if there is None:
    raise ValueError(
      f'{field} is {str(workdir)!r}, which holds no config.json: it is not the folder of a run'
    )
  config = config.copy_and_resolve_references()
  for name, value in _flat(there).items():
    *groups, last = name.split('.')
    node = config
    for group in groups:
      node = node.get(group, {}) if hasattr(node, 'get') else {}
    if last not in node:
      raise ValueError(f'{workdir}/config.json holds {name}, which this version does not know')
    try:
      node[last] = tuple(value) if isinstance(value, list) else value  # JSON knows no tuples
    except (TypeError, ValueError):
      raise ValueError(f'{workdir}/config.json: {name} is {value!r}, which is of another type') from None
  return config


def claim(workdir, config):
  """Makes the folder and writes the config into it, atomically: a killed start leaves no half of one."""
  write_text(pathlib.Path(workdir) / 'config.json', _text(config))


def write_text(path, text):
  """Writes a file, whole or not at all, and makes its folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'{path.name}.part')
  part.write_text(text, encoding='utf-8')  # whatever the system's own is: a page says it is UTF-8
  os.replace(part, path)


def fields(config):
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
