"""Command lines: overrides, recipes and runs by their paths, and one line for every mistake."""

import json
import pathlib
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from configs import digits
from ctx_flax.__main__ import MODES
from ctx_flax.configs import command_line, default, paths

# ml_collections loads a config file by a method that Python is going to drop.
pytestmark = pytest.mark.filterwarnings('ignore:.*load_module.*:DeprecationWarning')
ROOT = pathlib.Path(__file__).parent.parent
DIGITS = str(ROOT / 'configs' / 'digits.py')


@pytest.fixture
def parse(monkeypatch):
  """Reads a command line as main.py does, with flags of its own: parse('--config=...') -> config."""
  monkeypatch.setattr(sys, 'argv', sys.argv)

  def parse(*arguments):
    values = flags.FlagValues()
    monkeypatch.setattr(flags, 'FLAGS', values)
    config_flags.DEFINE_config_file('config', flag_values=values)
    flags.DEFINE_string('workdir', '', '', flag_values=values)
    flags.DEFINE_enum('mode', 'train', list(MODES), '', flag_values=values)
    command_line.parse(['main.py', *arguments])
    return values.config

  return parse


def test_overrides(parse):
  config = parse(
    f'--config={DIGITS}:wd=0.1',
    '--config.train.steps=100',
    '--config.model.class_counts=(5, 4, 3)',
    '--config.model.remat',
    '--config.optimizer.eps=1e-6',
  )
  assert (config.optimizer.weight_decay, config.train.steps, config.optimizer.eps) == (0.1, 100, 1e-6)
  assert config.model.class_counts == (5, 4, 3) and config.model.remat is True
  assert config.is_locked


@pytest.mark.parametrize(
  'arguments, message',
  [
    ([f'--config={DIGITS}', '--config.train.stepz=3'], "'train.stepz'; did you mean 'train.steps'"),
    ([f'--config={DIGITS}', '--config.trian.steps=3'], "'trian.steps'; did you mean 'train.steps'"),
    ([f'--config={DIGITS}', '--config.train=3'], "unknown config field 'train'"),
    ([f'--config={DIGITS}', '--config.seed.x=3'], "unknown config field 'seed.x'"),
    ([f'--config={DIGITS}', '--config.train.steps=4.5'], 'config.train.steps=4.5'),
    ([f'--config={DIGITS}', '--wrkdir=x'], 'wrkdir'),
    ([f'--config={DIGITS}', '--mode=evalaute'], "unknown --mode=evalaute; did you mean 'evaluate'"),
    ([f'--config={DIGITS}', 'train'], "unexpected argument 'train'"),
    ([f'--config={DIGITS}:plane'], "unknown variant 'plane'"),
    (['--config=configs/digit.py'], "no config file 'configs/digit.py'; did you mean 'configs/digits.py'"),
    (['--workdir=/nowhere/run'], r'/nowhere/run/config.json does not exist'),
  ],
)
def test_mistakes_are_one_line(parse, arguments, message):
  with pytest.raises(ValueError, match=message) as raised:
    parse(*arguments)
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize('flag', ['--workdir={run}', '--config={saved}:{run}'])
def test_config_of_a_run(parse, tmp_path, flag):
  config = digits.get_config('plain')
  (tmp_path / 'config.json').write_text(json.dumps(config.to_dict()))
  override = '--config.eval.batch_size=8'
  read = parse(flag.format(run=tmp_path, saved=ROOT / 'configs' / 'saved.py'), override)
  config.eval.batch_size = 8
  assert read == config
  assert type(read.model.class_counts) is tuple


@pytest.mark.parametrize('argument, workdir', [('', 'digits'), (':plain,wd=0.1', 'digits-plain-wd=0.1')])
def test_default_workdir(parse, argument, workdir):
  parse(f'--config={DIGITS}{argument}')
  assert command_line.default_workdir() == f'runs/{workdir}'


def test_default_workdir_of_a_saved_config(parse, tmp_path):
  run = tmp_path / 'run:1'
  run.mkdir()
  (run / 'config.json').write_text(json.dumps(digits.get_config().to_dict()))
  parse(f'--config={ROOT / "configs" / "saved.py"}:{run}')
  assert command_line.default_workdir() == str(run)


@pytest.mark.parametrize('flag', ['--workdir=~/run', f'--config={ROOT / "configs" / "saved.py"}:~/run'])
def test_home_in_the_folder_of_a_run(parse, tmp_path, monkeypatch, flag):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text(json.dumps(digits.get_config('seed=7').to_dict()))
  assert parse(flag).seed == 7
  assert command_line.default_workdir() == str(tmp_path / 'run')


def test_home_in_a_recipe_s_path_and_in_a_new_workdir(parse, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'mine.py').write_text(pathlib.Path(DIGITS).read_text())
  assert parse('--config=~/mine.py:wd=0.1', '--workdir=~/new').optimizer.weight_decay == 0.1
  assert flags.FLAGS.workdir == str(tmp_path / 'new')


def test_a_recipe_outside_of_the_clone(parse, tmp_path, monkeypatch):
  """It imports nothing but the package, and a misspelt one is answered with those of ./configs, if any."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'mine.py').write_text(
    'from ctx_flax.configs import default\n'
    'def get_config(argument=""):\n'
    '  config = default.get_config()\n'
    '  config.seed = 5\n'
    '  return default.with_variants(config, argument, {"lr": "optimizer.learning_rate"})\n'
  )
  assert parse('--config=mine.py:lr=0.5').seed == 5
  with pytest.raises(ValueError, match=r"^there is no config file 'configs/mine.py'$"):
    parse('--config=configs/mine.py')
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'mine.py').rename(tmp_path / 'configs' / 'mine.py')
  with pytest.raises(ValueError, match=r"'configs/mien.py'; did you mean 'configs/mine.py'\?$"):
    parse('--config=configs/mien.py')
  with pytest.raises(ValueError, match=r"'zzz'; known: configs/mine.py$"):
    parse('--config=zzz')


@pytest.mark.parametrize(
  'recipe, message',
  [
    ('x = 1\n', r'mine\.py: a recipe needs a function get_config\(argument\)'),
    ('def get_config(argument=""):\n  return nothing\n', r'mine\.py, line 2: NameError'),
    ('def get_config(:\n', r'mine\.py, line 1: SyntaxError'),
    ('\nfrom nowhere import default\n', r'mine\.py, line 2: ModuleNotFoundError'),
    (
      'from ctx_flax.configs import default\ndef get_config(argument=""):\n'
      '  config = default.get_config()\n  config.train.stepz = 3\n',
      r'mine\.py, line 4: AttributeError.*stepz',
    ),
  ],
)
def test_mistakes_in_a_recipe_are_one_line(parse, tmp_path, recipe, message):
  path = tmp_path / 'mine.py'
  path.write_text(recipe)
  with pytest.raises(ValueError, match=message) as raised:
    parse(f'--config={path}')
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
  'override, message',
  [
    ('train.batch_size=-3', r'train\.batch_size must be 1 or more, but is -3'),
    ('data.rotate=nan', r'data\.rotate must be a finite number, but is nan'),
    ("data.std=('a',)", r'data\.std must hold 1 or 3 values above 0'),
    ('data.image_size=224000', r'data\.image_size must be at most 8192'),
    ('model.param_dtype=float23', "did you mean 'float32'"),
    ('train.batch_size=2.5', r'config\.train\.batch_size=2\.5'),
    ('data.flip=yes', r'config\.data\.flip=yes'),
    ('data.mean=abc', r'data\.mean'),
    ('model.dims=(8,16', r'config\.model\.dims=\(8,16'),
    ('seed=99999999999999999999', r'seed must be between 0 and'),
    ('profile=maybe', r'config\.profile=maybe'),
  ],
)
def test_values_without_a_meaning_are_one_line(parse, override, message):
  with pytest.raises(ValueError, match=message) as raised:
    parse(f'--config={DIGITS}', f'--config.{override}')
  assert '\n' not in str(raised.value)


def test_options_of_contextual_networks_for_a_plain_one(parse, tmp_path):
  """Typed they are refused; in a config that both networks share they are not used."""
  with pytest.raises(ValueError, match=r'--config\.model\.mask_gain=2\.0 changes nothing in convnext_mini'):
    parse(f'--config={DIGITS}:plain', '--config.model.mask_gain=2')
  with pytest.raises(ValueError, match=r'class_counts=\(5, 4, 3\) changes nothing in convnext_mini'):
    parse(f'--config={DIGITS}', '--config.model.name=convnext_mini', '--config.model.class_counts=(5, 4, 3)')
  (tmp_path / 'config.json').write_text(json.dumps(digits.get_config('plain').to_dict()))
  with pytest.raises(ValueError, match='class_selection=rerank changes nothing'):
    parse(f'--workdir={tmp_path}', '--config.model.class_selection=rerank')
  assert parse(f'--config={DIGITS}:plain', '--config.model.mask_gain=1').model.class_counts == (8, 6, 4)


def test_fields_of_contextual_networks_exist():
  known = dict(paths.leaves(default.get_config()))
  assert set(command_line.CONTEXTUAL_FIELDS) <= known.keys()


def test_a_workdir_that_is_a_file(parse, tmp_path):
  (tmp_path / 'file').write_text('')
  for arguments in ([f'--config={DIGITS}'], []):
    with pytest.raises(ValueError, match=rf'^--workdir={tmp_path / "file"} is a file: it must be the folder'):
      parse(*arguments, f'--workdir={tmp_path / "file"}')


def test_weights_without_a_run(parse):
  """A mode that works on weights alone needs no --workdir: nothing is refused, and a folder has a name."""
  config = parse(f'--config={DIGITS}', '--config.init.weights=weights.safetensors')
  assert config.init.weights == 'weights.safetensors' and command_line.default_workdir() == 'runs/digits'
