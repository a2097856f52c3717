"""From the command line to a config: --config=RECIPE.py:VARIANTS and --config.FIELD=VALUE.

Every mistake in it is a ValueError of one line.
"""

import pathlib
import re
import runpy
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from absl import flags
from ml_collections import config_flags

from ctx_flax.configs import default, paths, rules
from ctx_flax.nearest import nearest

SAVED = pathlib.Path(__file__).parent / 'saved.py'
# What has a meaning in contextual networks alone, beside a name that begins with this.
CONTEXTUAL = 'ctx_'
CONTEXTUAL_FIELDS = (
  'model.embed_dim',
  'model.class_counts',
  'model.class_selection',
  'model.contextual_every',
  'model.mask_gain',
  'model.ablate',
  'model.branch_dim',
  'model.drop_path_in_contextual',
  'model.logit_scale_init',
  'model.merge_contrast',
  'train.class_counts_warmup',
)


def parse(argv: list[str]) -> list[str]:
  """Reads absl's flags, among them one made by config_flags.DEFINE_config_file('config').

  Without --config, but with --workdir=RUN, the config is the one that is saved in RUN. `~` is expanded in
  both.

  Args:
    argv: the program's name and its arguments.

  Raises:
    ValueError: an unknown flag, mode, recipe, variant or field (with the nearest name), a value of a wrong
      type or without a meaning, an option of contextual networks with a plain one, or a workdir that is a
      file.
  """
  argv = [argv[0], *_with_home(argv[1:])]
  recipe, workdir = _value(argv, 'config'), _value(argv, 'workdir')
  if workdir and pathlib.Path(workdir).is_file():
    raise ValueError(f'--workdir={workdir} is a file: it must be the folder of a run')
  if not recipe and workdir:
    recipe = f'{SAVED}:{workdir}'
    # First, because overrides come after the config that they change.
    argv = [argv[0], f'--config={recipe}', *argv[1:]]
  if recipe:
    _check_recipe(recipe, argv)
  _check_mode(_value(argv, 'mode'))
  # The config flag looks for overrides in sys.argv, not in what it is given.
  sys.argv = list(argv)
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    raise ValueError(str(error)) from error
  if len(rest) > 1:
    raise ValueError(f'unexpected argument {rest[1]!r}: flags are --NAME=VALUE')
  if recipe:
    config = flags.FLAGS['config'].value
    rules.check(config)
    _check_plain(config, argv)
  return rest


def default_workdir() -> str:
  """For --config=configs/digits.py:plain,wd=1 'runs/digits-plain-wd=1'; for configs/saved.py:RUN 'RUN'."""
  path, _, argument = config_flags.get_config_filename(flags.FLAGS['config']).partition(':')
  stem = pathlib.Path(path).stem
  if stem == SAVED.stem:
    return str(pathlib.Path(argument).expanduser())
  return '/'.join(('runs', '-'.join((stem, *filter(None, argument.split(','))))))


def _with_home(arguments):
  """The arguments with `~` expanded at the start of --config and --workdir."""
  values = re.compile(r'(--?(?:config|workdir)=)(~.*)', re.DOTALL)
  for argument in arguments:
    match = values.fullmatch(argument)
    yield match[1] + str(pathlib.Path(match[2]).expanduser()) if match else argument


def _value(argv, name):
  """The value of the last --name=value or --name value, or ''."""
  values = [
    after for arg, after in zip(argv, [*argv[1:], ''], strict=True) if re.fullmatch(f'--?{name}', arg)
  ]
  values += [arg.partition('=')[2] for arg in argv if re.match(f'--?{name}=', arg)]
  return values[-1] if values else ''


def _check_mode(mode: str) -> None:
  """Raises ValueError, with the nearest known one, for an unknown --mode; absl's message lists them alone."""
  parser = flags.FLAGS['mode'].parser
  known = parser.enum_values if isinstance(parser, flags.EnumParser) else ()
  if mode and mode not in known:
    raise ValueError(f'unknown --mode={mode}{nearest(mode, known)}; known: {", ".join(known)}')


def _overrides(argv: list[str]) -> Iterator[str]:
  """The fields that the command line names."""
  for arg in argv:
    override = re.match(r'--?(no)?config\.([^=]+)', arg)
    if override:
      yield override[2]


def _check_recipe(recipe, argv):
  """Loads the recipe once before absl does, to say in one line what is wrong with it or an override."""
  name, colon, argument = recipe.partition(':')
  path = pathlib.Path(name)
  if not path.is_file():
    known = [str(file) for file in sorted(pathlib.Path('configs').glob('*.py')) if file.stem != '__init__']
    hint = nearest(name, known) or (f'; known: {", ".join(known)}' if known else '')
    raise ValueError(f'there is no config file {name!r}{hint}')
  # Load it here first: absl reports an error in the recipe as a full traceback.
  try:
    config = runpy.run_path(name)['get_config'](*[argument] if colon else [])
  except ValueError:
    raise
  except Exception as error:  # a recipe is a user's own program and may raise anything
    raise ValueError(f'{_place(error, path)}: {_first_line(error)}') from error
  known = [field for field, _ in paths.leaves(config)]
  for field in _overrides(argv):
    if field not in known:
      raise ValueError(f'unknown config field {field!r}{nearest(field, known)}')


def _place(error: BaseException, path: pathlib.Path) -> str:
  """The file and, if the traceback knows it, the line of a recipe in which an error arose."""
  lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
  if isinstance(error, SyntaxError):
    lines = [error.lineno]
  return f'{path}, line {lines[-1]}' if lines else str(path)


def _first_line(error: BaseException) -> str:
  if isinstance(error, KeyError) and error.args == ('get_config',):
    return 'a recipe needs a function get_config(argument)'
  return f'{type(error).__name__}: {error}'.splitlines()[0]


def _check_plain(config: Any, argv: list[str]) -> None:
  """Raises ValueError for an option of contextual networks that was typed for a plain one.

  A config that both share may hold them, as they are then not used; but who types one expects an effect.
  """
  if config.get('task') != 'classification' or config.model.name.startswith(CONTEXTUAL):
    return
  defaults = default.get_config()
  for field in _overrides(argv):
    value = paths.get(config, field)
    if field in CONTEXTUAL_FIELDS and value != paths.get(defaults, field):
      raise ValueError(
        f'--config.{field}={value} changes nothing in {config.model.name}, which is a plain network: '
        f'leave it out, or take a network whose name begins with {CONTEXTUAL}'
      )
