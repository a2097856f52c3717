"""A family of networks is added by entries in two tables: everything else serves it as it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_family
from initial_values import initial_values, moved

from configs import digits
from ctx_flax.analysis import class_activation, sampling_points
from ctx_flax.models import MODELS, create_model, weights
from ctx_flax.models.network import stages_of
from ctx_flax.tasks import run
from ctx_flax.torch_weights import load_torch_weights, names, number_of_classes, to_torch

IMAGES = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
  for name, entry in toy_family.MODELS.items():
    monkeypatch.setitem(MODELS, name, entry)
  monkeypatch.setattr(names, 'SOURCES', (*names.SOURCES, toy_family.SOURCE))


@pytest.fixture(scope='module')
def networks():
  """{name: (model, variables)}, no parameter at its initial zero."""
  made = {}
  for name, (family, attributes) in toy_family.MODELS.items():
    counts = {'embed_dim': 16, 'class_counts': (4, 2)} if 'contextual' in attributes else {}
    model = family(num_classes=6, **attributes, **counts)
    made[name] = model, moved(initial_values(model, IMAGES.shape[1:]), 0.1)
  return made


@pytest.mark.parametrize('name', toy_family.MODELS)
def test_outputs(networks, name):
  model, variables = networks[name]
  keywords = {'embed_dim': 16, 'class_counts': (4, 2)} if name == 'ctx_toy' else {}
  assert create_model(name, num_classes=6, **keywords) == model
  logits, out = jax.jit(model.apply)(variables, IMAGES)
  assert stages_of(out) == ((1, 2, 3) if name == 'ctx_toy' else (3,))
  alive = [np.asarray(out[f'alive{stage}']).sum(1).tolist() for stage in stages_of(out)]
  assert alive == ([[6, 6], [4, 4], [2, 2]] if name == 'ctx_toy' else [[6, 6]])
  np.testing.assert_array_equal(np.isfinite(logits), out['alive3'])
  for stage, stride in enumerate(model.strides, 1):
    assert out[f'stage{stage}'].shape[1] == 16 // stride


def test_class_counts_follow_from_the_number_of_stages():
  assert create_model('ctx_toy').make_contextualizer(parent=None).class_counts == (500, 200)
  with pytest.raises(ValueError, match=r'class_counts=\(9, 8, 7\): expected N_2, N_3, or'):
    create_model('ctx_toy', class_counts=(9, 8, 7))


def test_weights_from_pytorch(networks):
  plain, variables = networks['toy']
  state = to_torch(variables, plain, 'elsewhere')
  assert {'toy.patches.weight', 'toy.2.1.mix.weight', 'toy.answer.bias'} < set(state)
  assert number_of_classes(state) == 6
  jax.tree.map(np.testing.assert_array_equal, load_torch_weights(state, plain), variables)
  contextual, own = networks['ctx_toy']
  started = load_torch_weights(state, contextual, allow_missing=('contextual', 'head'), initial=own)
  flat, kept = weights.flatten(started), weights.flatten(own)
  fresh = {name for name, value in flat.items() if value is kept[name]}
  assert {name.split('/')[1] for name in fresh} == {'contextualizer', 'stage2_block0', 'stage3_block0'}
  np.testing.assert_array_equal(flat['params/stage2_block0/mix/kernel'].shape, (3, 3, 8, 12))


def test_class_activation_maps(networks):
  model, variables = networks['ctx_toy']
  explain = jax.jit(functools.partial(class_activation.class_activation_map, model))
  maps, scores = explain(variables, IMAGES, jnp.array([1, 5]))
  assert maps.shape == (2, 2, 2) and scores.shape == (2,)
  stride = model.strides[-1]
  pixels = class_activation.upsample(np.eye(2)[None], 16, stride, model.first_centre(stride))
  # The centre of the first position lies between pixels 0 and 1, that of the second between 8 and 9.
  assert pixels[0, 0, 0] == 1 and pixels[0, 9, 9] == 1 and pixels[0, 4, 4] == pytest.approx(0.508, abs=1e-3)
  with pytest.raises(ValueError, match='stage is 4: it must be 1 to 3'):
    class_activation.class_activation_map(model, variables, IMAGES, jnp.array([1, 5]), stage=4)


def test_offsets(networks):
  model, variables = networks['ctx_toy']
  _, out = jax.jit(model.apply)(variables, IMAGES)
  assert sampling_points.blocks_of(out) == ['2.0', '3.0']
  out['offsets'] = jax.tree.map(jnp.zeros_like, out['offsets'])
  sampling = sampling_points.sampling_of(model, out, '3.0', 16)
  assert sampling.scale == 4  # it reads the map of stage 2
  np.testing.assert_allclose(sampling.points[0, 1, 0, 4], [8.5, 0.5])  # its middle tap, in pixels


@pytest.mark.slow
def test_a_run(tmp_path):
  config = digits.get_config()
  config.model.update(name='ctx_toy', embed_dim=16, depths=(), dims=(), class_counts=())
  config.model.update(drop_path_rate=0.0)
  config.optimizer.warmup_epochs = 0.0
  config.train.update(batch_size=16, steps=2, eval_every=0, checkpoint_every=2)
  config.eval.batch_size = 120
  results = run.train(config, tmp_path / 'run')
  assert np.isfinite(results['raw']['loss'])
  assert {'accuracy1', 'accuracy3', 'recall3'} <= set(results['raw']) and 'accuracy4' not in results['raw']
