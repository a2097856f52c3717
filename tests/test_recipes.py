"""The ImageNet recipes: their numbers, their full-size steps by shape, and tiny runs with everything on."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import PARAMETERS
from program import CONVNEXT_TINY, RESNET_TINY, TINY, run
from steps import make_train_step
from tiny import build_model, initial_state

from configs import convnext_b, convnext_s, convnext_t, resnet50
from ctx_flax.training import optimizer
from ctx_flax.training.parallel import AXIS

RECIPES = {'convnext_t': convnext_t, 'convnext_s': convnext_s, 'convnext_b': convnext_b, 'resnet50': resnet50}
IMAGES = 1_281_167  # of ImageNet's training set


class Thousand:
  num_classes = 1000


# Tracing takes its time: S is between T and B, whose plain ones differ from T's in numbers alone.
FULL_SIZE = [(name, variant) for name in ('convnext_t', 'resnet50') for variant in ('', 'plain')]


@pytest.mark.slow
@pytest.mark.parametrize('name, variant', [*FULL_SIZE, ('convnext_b', '')])
def test_the_full_size_step_fits_together(name, variant):
  """The step on eight devices keeps the shapes of the state, and its metrics are those of the stages."""
  config = RECIPES[name].get_config(variant)
  model = build_model(config, Thousand)
  rate = optimizer.learning_rate_schedule(config, IMAGES / config.train.batch_size)
  tx = optimizer.make_optimizer(config, rate)
  state = jax.eval_shape(lambda: initial_state(config, model, tx))
  assert sum(x.size for x in jax.tree.leaves(state.params)) == PARAMETERS[name if variant else f'ctx_{name}']
  rows = config.train.batch_size // 8
  batch = {
    'image': jax.ShapeDtypeStruct((8, rows, 224, 224, 3), jnp.float32),
    'label': jax.ShapeDtypeStruct((8, rows), jnp.int32),
    'weight': jax.ShapeDtypeStruct((8, rows), jnp.float32),
  }
  if config.data.mixup:
    batch |= {'other_label': batch['label'], 'lam': batch['weight']}
  step = make_train_step(model, tx, config)
  step = jax.vmap(step, in_axes=(None, 0), out_axes=(None, None), axis_name=AXIS)
  new, metrics = jax.eval_shape(step, state, batch)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
  stages = (4,) if variant else (1, 2, 3, 4)
  assert {f'loss{s}' for s in stages} | {f'accuracy{s}' for s in stages} <= set(metrics)
  assert bool(new.ema) == (name != 'resnet50')


def table(config):
  """What the paper's supplementary Table 2 says of a recipe."""
  return {
    'rate': config.optimizer.learning_rate,
    'decay': config.optimizer.weight_decay,
    'betas': (config.optimizer.beta1, config.optimizer.beta2),
    'batch': (config.train.batch_size, config.optimizer.reference_batch),
    'epochs': (config.train.epochs, config.optimizer.warmup_epochs),
    'rand_augment': dict(config.data.rand_augment),
    'mixing': (config.data.mixup, config.data.cutmix),
    'erasing': config.data.erasing,
    'smoothing': config.loss.label_smoothing,
    'drop_path': config.model.drop_path_rate,
    'ema': config.train.ema_decay,
    'crop_ratio': config.eval.crop_ratio,
  }


CONVNEXT = {
  'rate': 4e-3,
  'decay': 2e-5,
  'betas': (0.9, 0.999),
  'batch': (4096, 4096),
  'epochs': (300, 20),
  'rand_augment': {'operations': 2, 'magnitude': 9, 'magnitude_std': 0.5, 'probability': 0.5},
  'mixing': (0.8, 1.0),
  'erasing': 0.25,
  'smoothing': 0.1,
  'ema': 0.9999,
  'crop_ratio': 0.875,
}
RESNET = CONVNEXT | {
  'rate': 1e-3,
  'decay': 1e-2,
  'batch': (1024, 1024),
  'epochs': (150, 20),
  'mixing': (0, 0),
  'erasing': 0,
  'smoothing': 0,
  'drop_path': 0,
  'ema': 0,
  'crop_ratio': 0.95,
}


@pytest.mark.parametrize(
  'name, numbers',
  [
    ('convnext_t', CONVNEXT | {'drop_path': 0.1}),
    ('convnext_s', CONVNEXT | {'drop_path': 0.4}),
    ('convnext_b', CONVNEXT | {'drop_path': 0.5}),
    ('resnet50', RESNET),
  ],
)
def test_the_numbers_are_the_paper_s(name, numbers):
  config, plain = (RECIPES[name].get_config(variant) for variant in ('', 'plain'))
  assert table(config) == numbers == table(plain)
  assert (config.model.name, plain.model.name) == (f'ctx_{name}', name)
  assert config.loss.alpha == 0.15 and config.model.class_counts == ()


def test_other_readings_have_names():
  assert convnext_t.get_config('wd=0.05').optimizer.weight_decay == 0.05
  assert convnext_t.get_config('ema=0.9998,rerank').train.ema_decay == 0.9998
  assert convnext_s.get_config('rerank').model.class_selection == 'rerank'
  assert convnext_b.get_config('every=2').model.contextual_every == 2
  assert resnet50.get_config('smoothing=0.1').loss.label_smoothing == 0.1
  release = convnext_t.get_config('per_epoch,cooldown=10').optimizer
  assert release.per_epoch and release.cooldown_epochs == 10
  naive = convnext_t.get_config('naive')
  assert naive.model.class_counts == (1000, 1000, 1000) and naive.train.epochs == 50


def test_the_rate_follows_the_batch():
  """Eight images instead of 4096; at the end of the warm-up it joins the cosine of that step."""
  config = convnext_t.get_config('batch=8')
  rate = optimizer.learning_rate_schedule(config, 100)
  peak = 4e-3 * 8 / 4096
  assert float(rate(0)) == pytest.approx(1e-7)
  assert float(rate(2000)) == pytest.approx(
    1e-7 + 0.5 * (peak - 1e-7) * (1 + np.cos(np.pi * 20 / 300)), rel=1e-5
  )
  assert float(rate(30_000)) == pytest.approx(1e-7)


@pytest.mark.slow
@pytest.mark.parametrize('name, own', [('convnext_t', CONVNEXT_TINY), ('resnet50', RESNET_TINY)])
def test_a_tiny_run_with_everything_on(jpeg_folder, tmp_path, name, own):
  """In bfloat16 on four devices, from JPEGs of which some are damaged; then the evaluation of the run."""
  arguments = f'--config=configs/{name}.py:folder', f'--config.data.path={jpeg_folder}', *TINY, *own
  workdir = f'--workdir={tmp_path / "run"}'
  status, written, errors = run(*arguments, workdir, devices=4)
  assert (status, errors) == (0, '')
  assert f'ctx_{name}' in written and '4 devices' in written
  assert 'unreadable image does not count in the test: validation/class05/005.jpg: ' in written

  lines = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines] == [1, 2, 3, 4]
  assert all(np.isfinite(value) for line in lines for value in line.values())
  assert all(line['train/skipped'] == 0 for line in lines if 'train/skipped' in line)
  assert {'train/loss1', 'train/recall4', 'learning_rate', 'images_per_second', 'data/wait_share'} <= set(
    lines[0]
  )
  if name == 'convnext_t':
    assert [line['train/class_count2'] for line in lines] == [12, 9, 6, 6]
  # 37 of the 38 images count, twice the damaged one was met.
  assert [line['data/bad_test_images'] for line in lines if 'data/bad_test_images' in line] == [1, 1]
  accuracy = lines[-1]['test/raw/accuracy1'] * 37
  assert accuracy == pytest.approx(round(accuracy), abs=1e-3)
  assert (tmp_path / 'run' / 'augmented.png').stat().st_size > 10_000

  status, written, errors = run('--mode=evaluate', workdir, devices=4)
  assert (status, errors) == (0, '')
  for weights in ('raw', 'EMA')[: 1 + (name == 'convnext_t')]:
    for stage in (1, 4):
      assert f'{100 * lines[-1][f"test/{weights}/accuracy{stage}"]:.2f} %' in written
