"""Starting from weights: what is taken, starts anew, learns how fast, and resuming without the weights."""

import json
import shutil
import sys

import jax.numpy as jnp
import numpy as np
import pixel_family
import pytest
import safetensors.numpy
from initial_values import initial_values
from run_files import arrays, make_run
from tiny import initial_state, model_and_optimizer, tiny_config

from configs import finetune
from ctx_flax.data import sources
from ctx_flax.models import create_model
from ctx_flax.models.weights import flatten, save_weights
from ctx_flax.tasks import run
from ctx_flax.tasks.classification.class_counts import with_class_counts
from ctx_flax.tasks.classification.task import TASK
from ctx_flax.torch_weights import to_torch
from ctx_flax.training import optimizer, restore, starting_point
from ctx_flax.training.halt import Halt
from ctx_flax.training.state import create_state

EMBEDDING = 'params/contextualizer/class_embedding'


def settings(**init):
  config = tiny_config()
  config.train.update(steps=1, log_every=1, checkpoint_every=0)
  config.model.class_counts = ()
  config.init.update(init)
  return config


def pixels(**init):
  """The settings with a network that compiles in no time."""
  return pixel_family.four_stages(settings(**init))


@pytest.fixture(scope='module', autouse=True)
def family():
  with pixel_family.known():
    yield


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """The folder of a run of ten classes with counts (8, 6, 4)."""
  config = pixels()
  config.model.class_counts = (8, 6, 4)
  return make_run(config, tmp_path_factory.mktemp('source') / 'run')


def variables_of(workdir, kind='ema'):
  """{'params/...': array} of the newest checkpoint."""
  if kind == 'ema':
    return restore.read_weights(workdir).arrays
  prefix = "['variables']['params']"
  found = arrays(workdir)
  return {
    'params/' + name.removeprefix(prefix)[2:-2].replace("']['", '/'): value
    for name, value in found.items()
    if name.startswith(prefix)
  }


def start_from(config, model, state):
  return starting_point.start_from(config, TASK, model, restore.read_weights(config.init.weights), state)


def recipe(jpeg_folder):
  """The recipe for a user's own images, of the network of the source; twelve classes in one folder."""
  config, small = finetune.get_config('float32'), pixels()
  config.data.path = str(jpeg_folder / 'train')
  config.model.update({name: small.model[name] for name in ('name', 'depths', 'dims', 'embed_dim')})
  config.model.drop_path_rate = 0.0
  config.data.update(image_size=32, workers=0, threads=0)
  config.train.update(batch_size=16, steps=2, checkpoint_every=1, log_every=1)
  config.eval.batch_size = 16
  return config


@pytest.mark.slow
def test_finetuning_new_classes_on_a_frozen_network(source, jpeg_folder, tmp_path, capsys):
  """All but the class embeddings stays what the averaged weights were; it goes on without the weights."""
  moved = tmp_path / 'moved'
  shutil.copytree(source, moved)
  config = recipe(jpeg_folder)
  config.init.update(weights=str(moved), freeze=('(?!contextualizer/class_embedding).*',))
  results = run.train(config, tmp_path / 'run')
  assert results['raw'].keys() >= {'accuracy', 'top5'}
  expected, found = variables_of(source), variables_of(tmp_path / 'run', 'raw')
  assert found.keys() == expected.keys()
  assert [name for name, value in expected.items() if not np.array_equal(found[name], value)] == [EMBEDDING]
  assert expected[EMBEDDING].shape == (10, 8) and found[EMBEDDING].shape == (12, 8)
  start = initial_state(config, *model_and_optimizer(config, 12)).params['contextualizer']
  assert 0 < np.abs(found[EMBEDDING] - start['class_embedding']).max() < 0.01  # two steps away
  taken = f'started from {moved}: {len(expected) - 1} of {len(expected)} arrays, anew contextualizer\n'
  assert taken in capsys.readouterr().out
  saved = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert saved['model']['class_counts'] == [10, 7, 5]  # of twelve, as (8, 6, 4) are of ten

  shutil.rmtree(moved)
  shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '2')
  run.train(config, tmp_path / 'run')
  assert 'resumed at step 1' in capsys.readouterr().out
  again = variables_of(tmp_path / 'run', 'raw')
  for name, value in found.items():
    np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_finetuning_needs_a_folder_of_images_and_no_more(jpeg_folder, tmp_path):
  """Its classes lie in the folder itself; a fifth of each is held out."""
  config = recipe(jpeg_folder)
  assert config.init.weights == '' and config.init.reset_classes and config.init.pretrained_rate == 0.1
  found = run.check(config, tmp_path / 'run')
  assert found['batch']['label'].max() < 12
  train, test = (sources.open_source(config.data, split) for split in ('train', 'test'))
  assert train.num_classes == 12 and (len(train), len(test)) == (36, 12)


def test_class_counts_are_scaled_to_the_new_label_set(source, tmp_path):
  config = pixels(weights=str(source))
  scaled = lambda classes: with_class_counts(config, tmp_path / 'new', classes).model.class_counts
  assert scaled(20) == (16, 12, 8) and scaled(10) == (8, 6, 4)
  assert scaled(6) == (5, 5, 4)  # not fewer than five, which top-5 needs, or than there were
  config.model.class_counts = (9, 8, 7)
  assert scaled(20) == (9, 8, 7)  # told, and so not scaled
  assert settings().model.class_counts == with_class_counts(settings(), tmp_path, 20).model.class_counts


def test_factors_on_the_rate():
  config = settings(
    weights='somewhere',
    allow_missing=('contextual',),
    reset_classes=True,
    freeze=('stem_.*',),
    pretrained_rate=0.1,
  )
  factor = starting_point.rate_factor(config, TASK.fresh(config))
  expected = {
    'stem_conv/kernel': 0.0,
    'stage1_block0/dwconv/kernel': 0.1,
    'stage2_block0/dwconv/kernel': 0.1,
    'stage2_block0/dwconv/sampling_proj/kernel': 1.0,
    'contextualizer/class_embedding': 1.0,
    'contextualizer/head4/proj/kernel': 1.0,
    'head/kernel': 1.0,
    'norm/scale': 0.1,
  }
  assert {name: factor(name) for name in expected} == expected
  tx = optimizer.make_optimizer(config, 0.5, factor)
  params = {'stem_conv': {'kernel': jnp.ones((2, 2))}, 'norm': {'scale': jnp.ones(2)}}
  updates, _ = tx.update(params, tx.init(params), params)
  np.testing.assert_array_equal(updates['stem_conv']['kernel'], 0)
  np.testing.assert_allclose(updates['norm']['scale'], -0.5 * 0.1, rtol=1e-4)
  config.init.weights = ''
  assert starting_point.rate_factor(config, TASK.fresh(config))('norm/scale') == 1.0


def test_a_file_of_ours(source, tmp_path):
  config = pixels()
  model, tx = model_and_optimizer(config)
  state = create_state(initial_values(model), tx, ema=True)
  ours = str(tmp_path / 'ours.safetensors')
  save_weights(ours, start_from(pixels(weights=str(source)), model, state)[0].variables, model={})
  started, _ = start_from(pixels(weights=ours), model, state)
  for name, value in variables_of(source).items():
    np.testing.assert_array_equal(flatten(started.variables)[name], value, err_msg=name)
    np.testing.assert_array_equal(flatten(started.ema)[name], value, err_msg=name)


def test_a_file_as_pytorchs_of_the_plain_network_for_a_contextual_one(tmp_path):
  config = settings()
  model, tx = model_and_optimizer(config)
  state = create_state(initial_values(model), tx, ema=False)
  plain = create_model('convnext_mini', depths=config.model.depths, dims=config.model.dims, num_classes=7)
  variables = initial_values(plain, seed=3)
  theirs = str(tmp_path / 'theirs.safetensors')
  torch = {name: np.asarray(v, order='C') for name, v in to_torch(variables, plain, 'facebook').items()}
  safetensors.numpy.save_file(torch, theirs)
  config = settings(weights=theirs, allow_missing=('contextual', 'head'))
  started, taken = start_from(config, model, state)
  assert ', anew contextualizer, stage2_block0, stage3_block0, stage4_block0' in taken
  found, before = flatten(started.variables), flatten(state.variables)
  np.testing.assert_array_equal(
    found['params/stage2_block0/dwconv/kernel'], variables['params']['stage2_block0']['dwconv']['kernel']
  )
  for name in ('params/stage2_block0/dwconv/sampling_proj/kernel', 'params/contextualizer/class_embedding'):
    np.testing.assert_array_equal(found[name], before[name])


@pytest.mark.parametrize(
  'init, message',
  [
    ({'weights': 'none'}, 'none'),
    (
      {'freeze': ('stem.conv/kernell',)},
      r"init.freeze holds 'stem.conv/kernell', which matches no parameter",
    ),
    ({'freeze': ('(',)}, 'init.freeze holds .* no regular expression'),
    ({'pretrained_rate': -1.0}, 'init.pretrained_rate must be a factor'),
  ],
)
def test_mistakes_stop_a_run_before_it_starts(init, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(Halt, match=message) as halt:
    run.train(settings(**init), tmp_path / 'run')
  assert halt.value.status == 2 and not (tmp_path / 'run' / 'config.json').exists()


def test_weights_that_do_not_fit_are_told_by_check_too(source, tmp_path):
  config = pixels(weights=str(source))
  config.model.dims = (4, 4, 4, 6)
  for mode in (run.check, run.train):
    with pytest.raises(Halt, match='do not fit the network: of another shape') as halt:
      mode(config, tmp_path / 'run')
    assert halt.value.status == 2
  config = pixels(weights=str(source))
  config.model.mask_gain = 2.0
  with pytest.raises(Halt, match=r'set --config\.model\.mask_gain=1\.0'):
    run.train(config, tmp_path / 'run')
  config.model.update(mask_gain=1.0, merge_contrast=True)
  with pytest.raises(Halt, match=r'set --config\.model\.merge_contrast=False'):
    run.train(config, tmp_path / 'run')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(Halt, match='is not the folder of a run'):
    run.train(settings(weights=str(tmp_path / 'empty')), tmp_path / 'run')


def test_weights_that_cannot_be_read_are_told_in_one_line(source, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  (tmp_path / 'w.pth').write_bytes(b'')
  with pytest.raises(Halt, match='takes PyTorch: pip install torch') as halt:
    run.train(settings(weights=str(tmp_path / 'w.pth')), tmp_path / 'run')
  assert halt.value.status == 2
  (tmp_path / 'config.json').write_text('{')
  with pytest.raises(Halt, match=r'config\.json is not valid JSON'):
    run.train(settings(weights=str(tmp_path)), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
