"""From the command line to a config: --config=configs/RECIPE.py:VARIANTS and --config.FIELD=VALUE.

Every mistake in it is a ValueError of one line.
"""

import pathlib
import re
import runpy
import sys

from absl import flags
from ml_collections import config_flags

from configs import default

HERE = pathlib.Path(__file__).parent


def parse(argv):
  """Reads absl's flags, among them one made by config_flags.DEFINE_config_file('config').

  Without --config, but with --workdir=RUN, the config is the one that is saved in RUN.

  Args:
    argv: the program's name and its arguments.

  Raises:
    ValueError: an unknown flag, recipe, variant or field (with the nearest name), or a value of a wrong type.
  """
  recipe, workdir = _value(argv, 'config'), _value(argv, 'workdir')
  if not recipe and workdir:
    recipe = f'{HERE / "saved.py"}:{workdir}'
    # First, because overrides come after the config that they change.
    argv = [argv[0], f'--config={recipe}', *argv[1:]]
  if recipe:
    _check(recipe, argv)
  # The config flag looks for overrides in sys.argv, not in what it is given.
  sys.argv = list(argv)
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    raise ValueError(str(error)) from error
  if len(rest) > 1:
    raise ValueError(f'unexpected argument {rest[1]!r}: flags are --NAME=VALUE')
  return rest


def default_workdir():
  """For --config=configs/digits.py:plain,wd=1 'runs/digits-plain-wd=1'; for configs/saved.py:RUN 'RUN'."""
  path, _, argument = config_flags.get_config_filename(flags.FLAGS['config']).partition(':')
  stem = pathlib.Path(path).stem
  return (
    argument if stem == 'saved' else '/'.join(('runs', '-'.join((stem, *filter(None, argument.split(','))))))
  )


def _value(argv, name):
  """The value of the last --name=value or --name value, or ''."""
  values = [
    after for arg, after in zip(argv, [*argv[1:], ''], strict=True) if re.fullmatch(f'--?{name}', arg)
  ]
  values += [arg.partition('=')[2] for arg in argv if re.match(f'--?{name}=', arg)]
  return values[-1] if values else ''


def _check(recipe, argv):
  """Loads the recipe once before absl does, to say in one line what is wrong with it or an override."""
  path = pathlib.Path(recipe.partition(':')[0])
  if not path.is_file():
    known = [str(found.relative_to(HERE.parent)) for found in sorted(HERE.glob('*.py'))]
    raise ValueError(f'there is no config file {str(path)!r}{default.nearest(str(path), known)}')
  # Once more than absl, whose message for a mistake in here is a whole traceback.
  config = runpy.run_path(str(path))['get_config'](*recipe.split(':', 1)[1:])
  known = list(_paths(config))
  for arg in argv:
    override = re.match(r'--?(no)?config\.([^=]+)', arg)
    if override and override[2] not in known:
      raise ValueError(f'unknown config field {override[2]!r}{default.nearest(override[2], known)}')


def _paths(config, prefix=''):
  """The dotted names of all fields, without those of the groups."""
  for name, value in config.items():
    if hasattr(value, 'items'):
      yield from _paths(value, f'{prefix}{name}.')
    else:
      yield prefix + name
