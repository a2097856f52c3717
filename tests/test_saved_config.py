"""Saved configs: a field that one lacks has its default, and damage is told in one line."""

import json

import pytest

from configs import digits
from ctx_flax.configs import saved
from ctx_flax.training import run_folder


def test_saved_config_with_unknown_field(tmp_path):
  values = digits.get_config().to_dict()
  values['train']['epoch'] = 3
  (tmp_path / 'config.json').write_text(json.dumps(values))
  with pytest.raises(ValueError, match=r"unknown config field 'train\.epoch'; did you mean 'epochs'"):
    saved.get_config(str(tmp_path))


def test_a_saved_config_without_newer_fields_has_their_defaults(tmp_path):
  values = digits.get_config('wd=0.1').to_dict()
  del values['task'], values['train']['on_nan'], values['report']
  (tmp_path / 'config.json').write_text(json.dumps(values))
  assert saved.get_config(str(tmp_path)) == digits.get_config('wd=0.1')


@pytest.mark.parametrize(
  'text, message',
  [
    (b'{', 'is not valid JSON'),
    (b'\xff\xfe{}', 'is not valid JSON'),
    (b'[1, 2]', 'holds no JSON object'),
    (b'null', 'holds no JSON object'),
    (b'{"train": 3}', 'train must be a group of fields, but is 3'),
    (b'{"train": {"steps": [1]}}', r'train\.steps is \[1\], which is not of type int'),
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
  if message.startswith(('is', 'holds')):
    with pytest.raises(ValueError, match=f'{path} {message}'):
      run_folder.saved(tmp_path)
