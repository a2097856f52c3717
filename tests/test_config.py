"""Configs: the fields of default.py, variants, overrides, saved configs, and one line for every mistake."""

import itertools
import json
import pathlib
import re
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from configs import command_line, default, digits, saved
from ctx_flax.training import run_folder

# ml_collections loads a config file by a method that Python is going to drop.
pytestmark = pytest.mark.filterwarnings('ignore:.*load_module.*:DeprecationWarning')
ROOT = pathlib.Path(__file__).parent.parent
DIGITS = str(ROOT / 'configs' / 'digits.py')


def leaves(config, prefix=''):
  for name, value in config.items():
    if hasattr(value, 'items'):
      yield from leaves(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


@pytest.fixture
def parse(monkeypatch):
  """Reads a command line as main.py does, with flags of its own: parse('--config=...') -> config."""
  values = flags.FlagValues()
  monkeypatch.setattr(flags, 'FLAGS', values)
  monkeypatch.setattr(sys, 'argv', sys.argv)
  config_flags.DEFINE_config_file('config', flag_values=values)
  flags.DEFINE_string('workdir', '', '', flag_values=values)

  def parse(*arguments):
    command_line.parse(['main.py', *arguments])
    return values.config

  return parse


def test_no_value_is_none_or_of_a_type_without_override():
  for name, value in leaves(default.get_config()):
    assert type(value) in (bool, int, float, str, tuple), name


def test_every_field_has_a_comment():
  lines = (ROOT / 'configs' / 'default.py').read_text().splitlines()
  fields = {name.rpartition('.')[2] for name, _ in leaves(default.get_config())}
  commented = set()
  for above, line in itertools.pairwise(lines):
    assignment = re.match(r'  [\w.]+\.(\w+) = ', line)
    if assignment and ('  # ' in line or above.strip().startswith('# ')):
      commented.add(assignment[1])
  assert fields <= commented


def test_code_reads_every_field_and_no_other():
  code = '\n'.join(path.read_text() for path in (ROOT / 'ctx_flax').rglob('*.py'))
  known = dict(leaves(default.get_config()))
  for name in known:
    group, _, field = name.rpartition('.')
    # The model's fields are keywords of create_model, all passed at once.
    assert group == 'model' or re.search(rf'\.{field}\b|{field!r}', code), f'{name} is read nowhere'
  inner = {name.rpartition('.')[0] for name in known}
  groups = '|'.join({name.partition('.')[0] for name in known if '.' in name})
  for group, field in re.findall(rf'\bconfig\.({groups})\.(\w+)\b(?!\()', code):
    assert f'{group}.{field}' in known.keys() | inner, (
      f'config.{group}.{field} is read, but default.py lacks it'
    )


def test_recipes_cannot_add_fields():
  config = default.get_config()
  with pytest.raises(AttributeError):
    config.train.stepz = 3
  with pytest.raises(AttributeError):
    digits.get_config().stepz = 3


def test_variants_set_their_fields_only():
  plain, contextual = dict(leaves(digits.get_config('plain,wd=0.1'))), dict(leaves(digits.get_config()))
  assert {name for name in plain if plain[name] != contextual[name]} == {
    'model.name',
    'optimizer.weight_decay',
  }
  assert plain['model.name'] == 'convnext_mini' and plain['optimizer.weight_decay'] == 0.1
  assert digits.get_config('seed=7').seed == 7


@pytest.mark.parametrize(
  'argument, message',
  [
    ('plane', r"unknown variant 'plane'; known: plain, wd=VALUE.*did you mean 'plain'"),
    ('plain=3', "unknown variant 'plain=3'"),
    ('wd', "variant 'wd' needs a value: wd=VALUE"),
    ('wd=much', "'much' is not of type float"),
    ('seed=1.5', "'1.5' is not of type int"),
  ],
)
def test_wrong_variants(argument, message):
  with pytest.raises(ValueError, match=message):
    digits.get_config(argument)


def test_overrides(parse):
  config = parse(
    f'--config={DIGITS}:plain',
    '--config.train.steps=100',
    '--config.model.class_counts=(5, 4, 3)',
    '--config.model.remat',
    '--config.optimizer.eps=1e-6',
  )
  assert (config.model.name, config.train.steps, config.optimizer.eps) == ('convnext_mini', 100, 1e-6)
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


def test_saved_config_with_unknown_field(tmp_path):
  values = digits.get_config().to_dict()
  values['train']['epoch'] = 3
  (tmp_path / 'config.json').write_text(json.dumps(values))
  with pytest.raises(ValueError, match=r"unknown config field 'train\.epoch'; did you mean 'epochs'"):
    saved.get_config(str(tmp_path))


@pytest.mark.parametrize(
  'data, message',
  [
    (b'{', 'is not valid JSON'),
    (b'\xff{}', 'is not valid JSON'),
    (b'[1]', 'holds list, not the fields of a config'),
    (b'null', 'holds NoneType, not the fields of a config'),
    (b'{"model": 5}', 'model must be a group'),
    (b'{"seed": {"a": 1}}', 'seed must not be a group'),
    (b'{"train": {"steps": [1]}}', r'train\.steps is \[1\], but must be of type int'),
  ],
)
def test_a_damaged_saved_config_is_named(tmp_path, data, message):
  path = tmp_path / 'config.json'
  path.write_bytes(data)
  with pytest.raises(ValueError, match=f'{path}.*{message}') as refused:
    saved.get_config(str(tmp_path))
  assert '\n' not in str(refused.value)
  if message.startswith(('is', 'holds')):
    with pytest.raises(ValueError, match=f'{path} {message}'):
      run_folder.saved(tmp_path)


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
