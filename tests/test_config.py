"""Configs: every field has a comment and is read; recipes add none; variants, and the fields of a task."""

import collections
import itertools
import pathlib
import re
import types

import ml_collections
import pytest
from config_reads import Reads

from configs import digits
from ctx_flax.configs import default, fields, paths, rules, saved
from ctx_flax.configs.kinds import Whole

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = ROOT / 'ctx_flax' / 'configs'


def every_field():
  """{path: default} of the fields of all tasks."""
  return {path: value for task in fields.TASKS for path, value in paths.leaves(default.get_config(task=task))}


def test_no_value_is_none_or_of_a_type_without_override():
  for name, value in every_field().items():
    assert type(value) in (bool, int, float, str, tuple), name


def test_every_field_has_a_comment():
  names = {name.rpartition('.')[2] for name in every_field()}
  commented = set()
  files = CONFIGS / 'default.py', *(CONFIGS / 'fields').glob('*.py')
  lines = [line for path in files for line in path.read_text().splitlines()]
  for above, line in itertools.pairwise(lines):
    assignment = re.match(r'  [\w.]+\.(\w+) = ', line)
    if assignment and ('  # ' in line or above.strip().startswith('# ')):
      commented.add(assignment[1])
  assert names <= commented


def test_code_reads_every_field_and_no_other():
  """A field counts as read only where the code takes it from its own group."""
  known = every_field()
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


def test_the_task_comes_first(monkeypatch, tmp_path):
  """A task has the common groups and its own only; its saved config is read by its own fields."""

  def add_fields(config):
    config.clips = ml_collections.ConfigDict()
    config.clips.frames = 8

  clips = types.SimpleNamespace(add_fields=add_fields, RULES={'clips.frames': Whole(1, 64)})
  monkeypatch.setitem(fields.TASKS, 'clips', clips)
  config = default.get_config(task='clips')
  assert config.task == 'clips' and config.clips.frames == 8 and config.is_locked
  assert 'loss' not in config and 'mixup' not in config.data and 'mean' in config.data
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
