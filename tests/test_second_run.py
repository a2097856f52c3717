"""A second run is seen by its own config; class names in any normal form; `~` in paths; lines to paste."""

import json
import subprocess
import unicodedata

import numpy as np
import pytest

from ctx_flax.analysis import grad_cam
from ctx_flax.analysis.images import Images, normalised_for
from ctx_flax.configs import default
from ctx_flax.files import shell_word
from ctx_flax.models import weights
from ctx_flax.torch_weights import state_dicts
from ctx_flax.training import restore, run_folder


def test_what_its_config_lacks_has_the_default(tmp_path):
  saved = default.get_config().to_dict()
  del saved['train']['ema_decay'], saved['task'], saved['data']['mean']
  saved['seed'] = 7
  (tmp_path / 'config.json').write_text(json.dumps(saved))
  config = run_folder.with_saved(tmp_path, 'grad_cam.plain')
  assert config == _with_seed(default.get_config(), 7)


def _with_seed(config, seed):
  config.seed = seed
  return config


def test_its_images_are_normalised_as_its_own():
  pixels = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
  data = [
    {'mean': (0.5, 0.4, 0.3), 'std': (0.2, 0.2, 0.1)},
    {'mean': (0.1, 0.1, 0.1), 'std': (0.3, 0.3, 0.3)},
  ]
  own = [(pixels - np.float32(d['mean'])) / np.float32(d['std']) for d in data]
  images = Images(own[0], None, np.zeros(2, int), ('a', 'b'))
  np.testing.assert_allclose(normalised_for(images, *data).arrays, own[1], atol=1e-5)
  assert normalised_for(images, data[0], data[0]) is images


def test_class_names_in_another_normal_form():
  names = 'Öl', unicodedata.normalize('NFD', 'Käse')
  assert grad_cam.class_number('Käse', names) == 1
  assert grad_cam.class_number(unicodedata.normalize('NFD', 'Öl'), names) == 0


def test_home_is_expanded_in_files_of_weights(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  weights.save_weights('~/w.safetensors', {'params': {'a': np.ones(2)}}, model={})
  assert (tmp_path / 'w.safetensors').exists() and weights.is_ours('~/w.safetensors')
  np.testing.assert_array_equal(weights.load_weights('~/w.safetensors')[0]['params']['a'], np.ones(2))
  assert list(restore.read_weights('~/w.safetensors').arrays) == ['params/a']
  assert list(state_dicts.read_state_dict('~/w.safetensors')) == ['params/a']


@pytest.mark.parametrize('name', ['a', 'a b', "it's", '$(x)', 'a\nb', "\udcff'\\n"])
def test_lines_to_paste_name_the_same_file(name):
  word = shell_word(f'--x={name}')
  assert '\n' not in word and word.isprintable()
  shown = subprocess.run(['bash', '-c', f'printf %s {word}'], capture_output=True, check=True).stdout
  assert shown == f'--x={name}'.encode('utf-8', 'surrogateescape')
