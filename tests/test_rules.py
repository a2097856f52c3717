"""Every field's rule: numbers that are none, tuples of the wrong kind and misspelt names end in one line."""

import math
import re

import pytest

from configs import (
  convnext_b,
  convnext_s,
  convnext_t,
  digits,
  finetune,
  glyphs,
  linear_probe_cars,
  linear_probe_cub,
  patches,
  resnet50,
)
from ctx_flax.analysis import class_activation, predict, recall_curves
from ctx_flax.configs import default, paths, rules
from ctx_flax.configs.kinds import Choice, Number, Text, Tuple, Whole
from ctx_flax.data import pipeline
from ctx_flax.tasks.classification import objective
from ctx_flax.tasks.classification.task import TASK
from ctx_flax.training import optimizer, restore, setup, step

FIELDS = dict(paths.leaves(default.get_config()))
RULES = rules.of_task('classification')
MAY_BE_NEGATIVE = {'data.mean', 'sweep.over'}
NUMBERS = [path for path, value in FIELDS.items() if type(value) in (int, float)]
TUPLES = [path for path, value in FIELDS.items() if type(value) is tuple]
CHOICES = [path for path, rule in RULES.items() if isinstance(rule, Choice)]
# How many of them there are depends on the network: create_model refuses another number of them.
BY_NETWORK = {'model.depths', 'model.dims', 'model.class_counts'}


def refused(path, value):
  """The message that check has for this value of a field; fails if it has none, or one of several lines."""
  config = default.get_config().to_dict()
  paths.put(config, path, value)
  with pytest.raises(ValueError) as raised:
    rules.check(config)
  message = str(raised.value)
  assert message.startswith(f'{path} ') and '\n' not in message and len(message) < 300
  return message


def accepted(path, value):
  config = default.get_config().to_dict()
  paths.put(config, path, value)
  rules.check(config)


def test_every_field_has_a_rule_and_every_rule_a_field():
  assert RULES.keys() == FIELDS.keys()


@pytest.mark.parametrize(
  'recipe',
  [
    *(convnext_b, convnext_s, convnext_t, digits, finetune, glyphs, linear_probe_cars, linear_probe_cub),
    *(patches, resnet50),
  ],
  ids=lambda recipe: recipe.__name__,
)
def test_every_recipe_and_variant_is_legal(recipe):
  variants = getattr(recipe, 'VARIANTS', {})
  for argument in ('', *(name for name, change in variants.items() if not isinstance(change, str))):
    rules.check(recipe.get_config(argument))


@pytest.mark.parametrize('path', NUMBERS)
def test_numbers(path):
  for value in (math.nan, math.inf, -math.inf, 'much', True):
    assert 'number' in refused(path, value)
  assert repr(-1) in refused(path, -1)
  if type(FIELDS[path]) is int:
    assert 'whole number' in refused(path, 1.5)


@pytest.mark.parametrize('path', TUPLES)
def test_tuples(path):
  of_names = path in ('init.allow_missing', 'init.freeze', 'optimizer.no_decay', 'grad_cam.classes')
  elements = (1.5 if of_names else 'a', math.nan, None, (None,))
  for element in elements if path != 'sweep.over' and path != 'grad_cam.classes' else (math.nan, None):
    # As many as there may be, so that nothing but the element is wrong.
    refused(path, (element,) * len(FIELDS[path] or (max(RULES[path].lengths, default=1) * (0,))))
  refused(path, 3)
  if path not in MAY_BE_NEGATIVE and not of_names:
    refused(path, (-1,) * max(RULES[path].lengths, default=3))


def test_lengths_of_tuples():
  fixed = {path for path, rule in RULES.items() if isinstance(rule, Tuple) and rule.lengths}
  assert fixed == {'data.mean', 'data.std', 'data.crop_scale', 'data.crop_aspect', 'offsets.position'}
  for path in fixed:
    refused(path, (0.5,) * 4)
  for path in TUPLES:
    refused(path, (1,) * 100_001)


@pytest.mark.parametrize('path', CHOICES)
def test_a_misspelt_choice_is_answered_with_the_nearest(path):
  for name in RULES[path].names:
    accepted(path, name)
    message = refused(path, f'{name}_')
    assert 'it must be one of' in message and message.endswith(f'; did you mean {name!r}?')


@pytest.mark.parametrize('path', [path for path, value in FIELDS.items() if type(value) in (str, bool)])
def test_texts_and_flags(path):
  for value in (3, None, ('a',)):
    refused(path, value)


@pytest.mark.parametrize('path', [path for path, rule in RULES.items() if isinstance(rule, Whole | Number)])
def test_the_ends_of_a_range(path):
  """Just inside is legal, just outside is not."""
  rule = RULES[path]
  least = 1 if isinstance(rule, Whole) else 1e-6
  accepted(path, rule.low + (least if getattr(rule, 'above', False) else 0))
  refused(path, rule.low - (0 if getattr(rule, 'above', False) else least))
  if rule.high < math.inf:
    accepted(path, rule.high - (least if getattr(rule, 'below', False) else 0))
    refused(path, rule.high + (0 if getattr(rule, 'below', False) else max(least, rule.high * 1e-6)))


@pytest.mark.parametrize(
  'path, value, message',
  [
    ('train.batch_size', -3, 'train.batch_size must be 1 or more, but is -3'),
    ('train.batch_size', 10**9, 'train.batch_size must be at most 1048576, but is 1000000000'),
    ('data.image_size', 224_000, 'data.image_size must be at most 8192, but is 224000'),
    ('model.dtype', 'bfloat61', "model.dtype is 'bfloat61': it must be one of .*; did you mean 'bfloat16'"),
    ('data.rotate', math.nan, 'data.rotate must be a finite number, but is nan'),
    ('data.std', ('a',), r"data.std must hold 1 or 3 values above 0, but is \('a',\)"),
    ('data.crop_scale', (0.5, 0.1), r'least, largest.* but is \(0.5, 0.1\)'),
    ('init.freeze', ('(',), r"init.freeze holds '\(', which is no regular expression"),
    ('optimizer.groups', (('.*', 1.0),), r'optimizer.groups must hold \(regex, factor'),
    ('optimizer.groups', (('.*', 1.0, math.inf),), r'optimizer.groups must hold \(regex, factor'),
    ('eval.checkpoint', 'newest', "eval.checkpoint is 'newest': it must be latest, best or the number"),
    ('task', 'clasification', "task is 'clasification': .*; did you mean 'classification'"),
  ],
)
def test_messages(path, value, message):
  assert re.match(message, refused(path, value)) or re.search(message, refused(path, value))


def test_legal_values_that_look_odd():
  for path, value in {
    'optimizer.groups': [['stage1.*', 0.5, 0], ['(?!stage1).*', 1, 1.0]],  # as JSON gives it back
    'data.mean': (0.5,),
    'sweep.field': 'model.class_counts',
    'sweep.over': ((8, 6, 4), (5, 4, 3)),
    'grad_cam.classes': ('tabby', 3),
    'model.layer_scale_init': 0,
    'eval.checkpoint': '120',
  }.items():
    accepted(path, value)


def test_names_are_those_of_the_code_that_reads_them():
  for path, names in {
    'train.on_nan': step.ON_NAN,
    'loss.normalise': objective.NORMALISE,
    'data.on_bad_image': pipeline.ON_BAD_IMAGE,
    'eval.weights': restore.VARIANTS,
    'recall.relative_to': recall_curves.READINGS,
    'predict.format': predict.FORMATS,
    'grad_cam.method': class_activation.METHODS,
    'optimizer.name': optimizer.OPTIMIZERS,
    'optimizer.schedule': optimizer.SCHEDULES,
  }.items():
    assert RULES[path].names == tuple(names), path


def test_a_batch_larger_than_the_machine_is_refused_at_once(monkeypatch):
  config = default.get_config()
  config.train.batch_size, config.eval.batch_size, config.data.image_size = 64, 128, 1024
  gib = 64 * 1024 * 1024 * 3 * 4 / 2**30  # of the training batch
  monkeypatch.setattr(rules, 'machine_memory', lambda: int(gib * 2**30))
  with pytest.raises(ValueError, match=r'eval\.batch_size is 128 and data\.image_size 1024: .* 2 GiB'):
    rules.check_memory(config)
  rules.check_memory(config, processes=2)
  monkeypatch.setattr(rules, 'machine_memory', lambda: 0)  # a system that does not say
  rules.check_memory(config)


def test_training_checks_the_rules_and_the_memory(monkeypatch):
  config = digits.get_config()
  config.data.shift = math.nan
  with pytest.raises(ValueError, match=r'data\.shift must be a finite number, but is nan'):
    setup.check_settings(config, TASK)
  monkeypatch.setattr(rules, 'machine_memory', lambda: 1000)
  with pytest.raises(ValueError, match='this machine has 0 GiB'):
    setup.check_settings(digits.get_config(), TASK)


def test_texts_are_matched_wholly():
  rule = Text(r'\d+', 'a number')
  assert rule.problem('12') == '' and rule.problem('12 ') == "is '12 ': it must be a number"
