"""--mode=check: what it tells is what training then is, and it writes nothing."""

import contextlib
import io

import jax
import numpy as np
import pixel_family
import pytest
from steps import random_batch
from tiny import initial_state, model_and_optimizer

from configs import digits
from ctx_flax.tasks import run
from ctx_flax.tasks.classification.objective import objective
from ctx_flax.training import check
from ctx_flax.training.halt import Halt


def small_config():
  config = digits.get_config()
  config.model.update(depths=(1, 1, 1, 1), dims=(16, 32, 48, 64), embed_dim=32)
  config.train.class_counts_warmup = 0.5
  config.data.threads = 0
  return config


@pytest.fixture
def config():
  return small_config()


@pytest.fixture(scope='module', autouse=True)
def family():
  """What is looked at here hardly depends on the network: one that compiles in no time."""
  with pixel_family.known():
    yield


@pytest.fixture(scope='module')
def told(tmp_path_factory):
  """What is found, and what is printed."""
  workdir = tmp_path_factory.mktemp('check') / 'run'
  with contextlib.redirect_stdout(io.StringIO()) as printed:
    found = run.check(pixel_family.four_stages(small_config()), workdir)
  assert not workdir.exists()
  return found, printed.getvalue()


def test_it_tells_the_run_and_writes_nothing(told):
  found, text = told
  assert found['steps'] == round(30 * 1437 / 64) == 674
  assert found['batch']['image'].shape == (64, 32, 32, 3) and found['batch']['label'].max() < 10
  for wanted in (
    'ctx_four_pixels',
    'stage2_block0',
    f'{found["parameters"]:,}',
    '1 x 8 images on 8 devices',
  ):
    assert wanted in text
  assert '1,437 training images, 360 test images, 10 classes' in text
  assert f'digits: 22.5 steps per epoch; {found["parameters"]:,} parameters' in text


def test_the_corners_of_the_schedules(told):
  """Warm-up over 2 epochs of 22.45 steps to 2e-3, joining the cosine; counts from 10 to (8, 6, 4)."""
  rows = {row['step']: row for row in told[0]['schedule']}
  assert {0, 44, 45, 337, 673} <= set(rows)
  assert rows[0]['learning_rate'] == pytest.approx(1e-7) and rows[0]['class_counts'] == (10, 10, 10)
  assert rows[44]['learning_rate'] == pytest.approx(2e-3 * 44 / 45, rel=1e-4)
  assert rows[337]['learning_rate'] == pytest.approx(1e-3, rel=1e-3)
  assert rows[337]['class_counts'] == rows[673]['class_counts'] == (8, 6, 4)
  assert rows[673]['learning_rate'] == pytest.approx(1e-7, rel=0.2)
  assert rows[337]['epoch'] == pytest.approx(337 / (1437 / 64))


def test_memory_of_the_state_is_that_of_its_arrays(told):
  found, _ = told
  memory, parameters = found['memory'], found['parameters']
  assert memory['parameters and batch statistics'] == 4 * parameters == memory['averaged weights']
  assert memory['optimizer'] == 8 * parameters + 8  # two moments, and two counts of steps
  assert memory['gradients'] == 4 * parameters
  batch = sum(x.nbytes for x in found['batch'].values())
  assert memory['batches, those ahead too'] == 4 * batch // 8  # two wait, one goes in, one comes


@pytest.mark.slow
def test_activations_grow_with_the_images_and_shrink_with_less_to_keep(config):
  """Remat and half the dtype keep less; accumulation halves what is kept at a time."""

  def activations(rows, **model):
    changed = config.copy_and_resolve_references()
    changed.model.update(model)
    network, _ = model_and_optimizer(changed)
    state = jax.eval_shape(lambda: initial_state(changed, network, OPTIMIZER))
    part = {name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for name, x in random_batch(0).items()}
    return check.activation_bytes(objective(changed, network, 100), state, part)

  eight = activations(8)
  # Not exactly: some of what is kept does not depend on the images, as the table of all classes.
  assert 1.8 * eight < activations(16) < 2 * eight
  assert activations(8, remat=True, drop_path_rate=0.1) < 0.7 * eight
  assert activations(8, dtype='bfloat16') < 0.8 * eight
  # The first stage alone keeps a few maps of 8 x 8 x 16 and 8 x 8 x 64.
  assert eight > 8 * 4 * 8 * 8 * (2 * 16 + 64)


class OPTIMIZER:
  """One without a state."""

  init = staticmethod(lambda params: {})


@pytest.mark.slow
def test_the_compiler_counts_on_demand(config):
  config.model.update(name='convnext_mini')
  config.train.update(class_counts_warmup=0.0, batch_size=16, accumulation=2)
  config.check.compile = True
  found = run.check(config, '')
  assert found['memory']['gradients'] == 8 * found['parameters']  # those of a part and their sum
  assert found['memory']['temporary, by the compiler'] > 0
  assert 'class_counts' not in found['schedule'][0]


def test_what_stops_training_stops_it(config):
  config.train.batch_size = 20
  with pytest.raises(Halt, match=r'train\.batch_size is 20: it must be a multiple of the 8 devices'):
    run.check(config, '')
  config.train.update(batch_size=16, accumulation=3)
  with pytest.raises(Halt, match=r'train\.accumulation is 3'):
    run.check(config, '')
  config.train.accumulation = 1
  config.data.update(name='image_folder', path='no/such/folder')
  with pytest.raises(Halt, match=r'data\.path is no/such/folder, which is not a folder') as refused:
    run.check(config, '')
  assert refused.value.status == 2


def test_bytes_know_bfloat16():
  assert check._bytes({'a': jax.ShapeDtypeStruct((3, 2), jax.numpy.bfloat16), 'b': np.zeros(4)}) == 12 + 32
