"""Configs: the fields of default.py, variants, overrides, saved configs, and one line for every mistake."""

import collections
import itertools
import json
import pathlib
import re
import sys
import types

import ml_collections
import pytest
from absl import flags
from config_reads import Reads
from ml_collections import config_flags

from configs import digits
from ctx_flax.configs import command_line, default, fields, paths, rules, saved
from ctx_flax.configs.kinds import Whole
from ctx_flax.training import run_folder

# ml_collections loads a config file by a method that Python is going to drop.
pytestmark = pytest.mark.filterwarnings('ignore:.*load_module.*:DeprecationWarning')
ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = ROOT / 'ctx_flax' / 'configs'
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
    command_line.parse(['main.py', *arguments])
    return values.config

  return parse


def test_no_value_is_none_or_of_a_type_without_override():
  for name, value in paths.leaves(default.get_config()):
    assert type(value) in (bool, int, float, str, tuple), name


def test_every_field_has_a_comment():
  fields = {name.rpartition('.')[2] for name, _ in paths.leaves(default.get_config())}
  commented = set()
  files = CONFIGS / 'default.py', *(CONFIGS / 'fields').glob('*.py')
  lines = [line for path in files for line in path.read_text().splitlines()]
  for above, line in itertools.pairwise(lines):
    assignment = re.match(r'  [\w.]+\.(\w+) = ', line)
    if assignment and ('  # ' in line or above.strip().startswith('# ')):
      commented.add(assignment[1])
  assert fields <= commented


def test_code_reads_every_field_and_no_other():
  """A field counts as read only where the code takes it from its own group."""
  known = dict(paths.leaves(default.get_config()))
  pairs = {path: tuple(path.split('.')[-2:]) for path in known if '.' in path}
  texts = collections.defaultdict(str)
  for path in (ROOT / 'ctx_flax').rglob('*.py'):
    if CONFIGS not in path.parents:  # modules of one name count as one
      texts[path.stem] += path.read_text()
  read = Reads(texts, {group for group, _ in pairs.values()}).fields
  for path, pair in pairs.items():
    # The model's fields are keywords of create_model, all passed at once.
    assert pair[0] == 'model' or pair in read, f'{path} is read nowhere'
  text = '\n'.join(texts.values())
  for path in known.keys() - pairs.keys() - {'task'}:  # which chooses the code that reads the others
    assert re.search(rf'\bconfig\.{path}\b|{path!r}', text), f'{path} is read nowhere'
  inner = {path.rpartition('.')[0] for path in known}
  groups = '|'.join({path.partition('.')[0] for path in known if '.' in path})
  for group, field in re.findall(rf'\bconfig\.({groups})\.(\w+)\b(?!\()', text):
    assert f'{group}.{field}' in known.keys() | inner, f'config.{group}.{field} is read, but no field'


def test_a_field_is_read_only_from_its_own_group():
  """Two groups have a field `images`: that one is read says nothing about the other."""
  text = """
def of_report(config):
  return config.report.images

def check_settings(options):
  for name in ('pairs', 'bins'):
    options[name]

def call(run):
  chosen = run.config.grad_cam
  check_settings(run.config.failures)
  return chosen.stage
"""
  read = Reads({'module': text}, {'report', 'failures', 'grad_cam'}).fields
  assert {('report', 'images'), ('failures', 'pairs'), ('failures', 'bins'), ('grad_cam', 'stage')} <= read
  assert not {('failures', 'images'), ('grad_cam', 'images'), ('grad_cam', 'pairs')} & read


def test_recipes_cannot_add_fields():
  config = default.get_config()
  with pytest.raises(AttributeError):
    config.train.stepz = 3
  with pytest.raises(AttributeError):
    digits.get_config().stepz = 3


def test_variants_set_their_fields_only():
  plain, contextual = (
    dict(paths.leaves(digits.get_config('plain,wd=0.1'))),
    dict(paths.leaves(digits.get_config())),
  )
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


def test_the_task_comes_first(monkeypatch, tmp_path):
  """A task has the common groups and its own only; its saved config is read by its own fields."""

  def add_fields(config):
    config.clips = ml_collections.ConfigDict()
    config.clips.frames = 8

  clips = types.SimpleNamespace(add_fields=add_fields, RULES={'clips.frames': Whole(1, 64)})
  monkeypatch.setitem(fields.TASKS, 'clips', clips)
  config = default.get_config(task='clips')
  assert config.task == 'clips' and config.clips.frames == 8 and config.is_locked
  assert 'loss' not in config and 'mixup' not in config.data and 'image_size' in config.data
  rules.check(config)
  config.clips.frames = 100
  with pytest.raises(ValueError, match=r'clips\.frames must be at most 64, but is 100'):
    rules.check(config)
  (tmp_path / 'config.json').write_text('{"task": "clips", "clips": {"frames": 16}, "seed": 3}')
  config = saved.get_config(str(tmp_path))
  assert (config.clips.frames, config.seed, config.train.batch_size) == (16, 3, 128)


def test_an_unknown_task():
  with pytest.raises(ValueError, match="unknown task 'clasification'; did you mean 'classification'"):
    default.get_config(task='clasification')


def test_a_saved_config_without_newer_fields_has_their_defaults(tmp_path):
  values = digits.get_config('wd=0.1').to_dict()
  del values['task'], values['train']['on_nan'], values['report']
  (tmp_path / 'config.json').write_text(json.dumps(values))
  assert saved.get_config(str(tmp_path)) == digits.get_config('wd=0.1')


@pytest.mark.parametrize(
  'text, message',
  [
    (b'[1, 2]', 'holds no JSON object'),
    (b'\xff\xfe{}', 'is not valid JSON'),
    (b'{"train": 3}', 'train must be a group of fields, but is 3'),
    (b'{"seed": {"a": 1}}', r"unknown config field 'seed\.a'"),
    (b'{"seed": "zero"}', "seed is 'zero', which is not of type int"),
    (b'{"task": "clasification"}', "unknown task 'clasification'; did you mean 'classification'"),
    (b'{"task": ["x"]}', 'unknown task'),
  ],
)
def test_damaged_saved_configs_are_one_line(tmp_path, text, message):
  path = tmp_path / 'config.json'
  path.write_bytes(text)
  with pytest.raises(ValueError, match=message) as raised:
    saved.get_config(str(tmp_path))
  assert str(raised.value).startswith(str(path)) and '\n' not in str(raised.value)


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
