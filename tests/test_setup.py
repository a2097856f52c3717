"""Wrong input is told in one line before anything is made; signals; the compilation cache."""

import os
import signal

import jax
import pytest

from configs import digits
from ctx_flax.models import create_model
from ctx_flax.tasks import run
from ctx_flax.tasks.classification import networks
from ctx_flax.training import halt, setup


@pytest.fixture
def config():
  return digits.get_config()


@pytest.mark.parametrize(
  'field, value, message',
  [
    ('model.name', 'ctx_convnext_mni', "unknown model 'ctx_convnext_mni'.*did you mean 'ctx_convnext_mini'"),
    ('model.class_counts', (4, 6, 8), r'class_counts=\(4, 6, 8\)'),
    ('model.class_counts', (8, 6, 1), r'class_counts=\(8, 6, 1\)'),
    ('model.class_counts', (11, 6, 4), r'class_counts=\(11, 6, 4\)'),
    ('model.num_classes', 12, 'model.num_classes is 12, but digits has 10'),
    ('model.class_selection', 'rank', "class_selection='rank'"),
    ('train.batch_size', 20, 'train.batch_size is 20: it must be a multiple of the 8 devices'),
    ('eval.batch_size', 100, 'eval.batch_size is 100: it must be a multiple of the 8 devices'),
    ('train.batch_size', 0, 'train.batch_size must be 1 or more'),
    ('train.keep_checkpoints', 0, 'train.keep_checkpoints must be 1 or more'),
    ('train.ema_decay', 1.0, 'train.ema_decay must be at least 0'),
    ('loss.alpha', -0.1, 'loss.alpha must be 0 or more'),
    ('data.image_size', 16, 'at least 32 x 32'),
    ('data.name', 'digit', "unknown data.name 'digit'"),
    ('data.mean', (0.1, 0.2), 'data.mean must hold 1 or 3 values'),
    ('seed', -1, 'seed must be between'),
  ],
)
def test_wrong_input_is_one_line_and_makes_nothing(config, tmp_path, field, value, message):
  config.update_from_flattened_dict({field: value})
  with pytest.raises(halt.Halt, match=message) as refused:
    run.train(config, tmp_path / 'run')
  assert refused.value.status == 2 and '\n' not in str(refused.value)
  assert not (tmp_path / 'run').exists()


def test_a_field_that_the_family_lacks_is_refused(config, tmp_path):
  config.model.update(name='ctx_resnet_mini', drop_path_rate=0.2)
  with pytest.raises(halt.Halt, match="ctx_resnet_mini takes no 'drop_path_rate'"):
    run.train(config, tmp_path / 'run')


def test_a_plain_network_has_no_use_for_the_contextual_options_of_a_shared_config(config):
  config.model.update(name='convnext_mini', class_counts=(8, 6, 4), mask_gain=2.0, class_selection='rerank')
  keywords = networks.model_keywords(config, 7)
  assert not {'class_counts', 'mask_gain', 'class_selection'} & set(keywords)
  model = create_model(**keywords)
  assert (model.num_classes, model.class_counts, model.layer_scale_init) == (
    7,
    (),
    config.model.layer_scale_init,
  )


def test_bugs_are_not_taken_for_wrong_input():
  with pytest.raises(TypeError), halt.bad_input():
    raise TypeError('a bug')


def test_the_second_signal_is_not_held_back():
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    _second_signal()
  finally:
    signal.signal(signal.SIGINT, before)


def _second_signal():
  with pytest.raises(KeyboardInterrupt), halt.stopping_signal() as received:
    signal.raise_signal(signal.SIGINT)
    assert received == [signal.SIGINT]
    signal.raise_signal(signal.SIGINT)


def test_compilation_cache(config):
  """Where jax was told a folder before, as by the environment variable, the config's is not used."""
  before = jax.config.jax_compilation_cache_dir
  assert before
  setup.use_compilation_cache(config)
  assert jax.config.jax_compilation_cache_dir == before
  try:
    jax.config.update('jax_compilation_cache_dir', None)
    config.compilation_cache = ''
    setup.use_compilation_cache(config)
    assert jax.config.jax_compilation_cache_dir is None
    config.compilation_cache = '~/a/folder'
    setup.use_compilation_cache(config)
    assert jax.config.jax_compilation_cache_dir == os.path.expanduser('~/a/folder')
  finally:
    jax.config.update('jax_compilation_cache_dir', before)


def test_a_network_larger_than_the_memory_is_refused(config, tmp_path):
  config.model.dims = (64, 128, 256, 32768)
  with pytest.raises(halt.Halt, match=r'parameters of ctx_convnext_mini, .* GiB: make model\.dims') as told:
    run.check(config, tmp_path / 'run')
  assert told.value.status == 2 and '\n' not in str(told.value)
