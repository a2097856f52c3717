"""The recipes of clips: TSM's numbers and parameter groups, full-size networks by shape."""

import json
import math

import jax
import jax.numpy as jnp
import pytest
from networks import slow_unless

from configs import kinetics_tsm, moves
from ctx_flax.data import clip_pipeline
from ctx_flax.models import create_model
from ctx_flax.models.summary import summarise
from ctx_flax.models.weight_files import flatten
from ctx_flax.models.weights import expected_variables
from ctx_flax.tasks.classification.networks import model_keywords
from ctx_flax.torch_weights.names import find_source
from ctx_flax.training import optimizer
from ctx_flax.training.parameter_groups import decay_mask, group_factors

# Of 1,000 classes the contextual one has 27,971,582.
PARAMETERS = {'plain': 24_327_632, '': 27_971_582 - 600 * 256}


def network(config):
  return create_model(**model_keywords(config, config.model.num_classes))


def factors(config):
  """{name: (factor on the rate, factor on the decay, 0 where there is none)} of every parameter."""
  params = expected_variables(network(config))['params']
  rates, decays = group_factors(params, config.optimizer.groups)
  mask = decay_mask(params, config.optimizer.no_decay)
  flat = [flatten({'params': tree}) for tree in (rates, decays, mask)]
  return {name: (flat[0][name], flat[1][name] * flat[2][name]) for name in flat[0]}


def test_groups_of_the_released_code(golden_folder):
  groups = json.loads((golden_folder / 'video' / 'parameter_groups.json').read_text())
  theirs = {
    name: (group['lr_mult'], group['decay_mult'])
    for group in groups['partial_bn=False,fc_lr5=True'].values()
    for name in group['params']
  }
  source = find_source('tsm', 'ResNet')
  ours = {source.torch_name(name.split('/')): pair for name, pair in factors(plain()).items()}
  # A bias has no decay, so that its group's factor on it says nothing.
  assert ours == theirs


def plain():
  return kinetics_tsm.get_config('plain')


def test_groups_of_the_contextual_network():
  found = factors(kinetics_tsm.get_config())
  assert found['params/contextualizer/class_embedding'] == (5, 0)
  assert found['params/contextualizer/logit_scale'] == (1, 0)
  assert found['params/contextualizer/head1/proj/bias'] == (2, 0)
  assert found['params/stage2_block0/conv2/sampling_out/bias'] == (2, 0)
  assert found['params/contextualizer/merger2/inner_norm/bias'] == (1, 0)
  assert found['params/stage1_block0/bn1/bias'] == (1, 0)
  assert found['params/conv1/kernel'] == found['params/contextualizer/head4/out/kernel'] == (1, 1)


@pytest.mark.parametrize('variant', slow_unless(PARAMETERS, 'plain'))
def test_the_networks_of_the_paper(variant):
  config = kinetics_tsm.get_config(variant)
  model = network(config)
  layers = summarise(model, model.example_shape(224))
  assert sum(layer.parameters for layer in layers) == PARAMETERS[variant]
  assert model.contextual == (not variant)
  # Eight frames take as much as eight images, but that a clip merges its classes once.
  macs = lambda layers, name='': sum(layer.macs for layer in layers if name in layer.path)
  image = summarise(model.clone(segments=1), (224, 224, 3))
  assert macs(layers) == 8 * macs(image) - 7 * macs(image, 'merger')
  if variant:
    assert macs(image) / 1e9 == pytest.approx(4.089, rel=1e-3)  # as published


def test_the_schedule_of_the_script():
  config = kinetics_tsm.get_config()
  per_epoch = 1000
  rate = optimizer.learning_rate_schedule(config, per_epoch)
  assert [float(rate(step)) for step in (0, 19_999, 20_000, 39_999, 40_000)] == pytest.approx(
    [0.02, 0.02, 2e-3, 2e-3, 2e-4]
  )
  config.train.batch_size = 256
  assert float(optimizer.learning_rate_schedule(config, per_epoch)(0)) == pytest.approx(0.04)


@pytest.mark.parametrize('recipe', [kinetics_tsm, moves])
def test_variants_make_networks(recipe):
  for variant in ('', *recipe.VARIANTS):
    if isinstance(recipe.VARIANTS.get(variant, {}), dict):
      config = recipe.get_config(variant)
      clip_pipeline.check_settings(config)
      config.model.num_classes = config.model.num_classes or 8
      assert network(config).segments == 8
  assert kinetics_tsm.get_config('segments=16').model.segments == 16
  assert math.prod(network(moves.get_config()).example_shape(32)) == 8 * 32 * 32 * 3


def test_eight_frames_of_one_clip_fit_together():
  model = network(kinetics_tsm.get_config())
  clips = jax.ShapeDtypeStruct((2, 8, 224, 224, 3), jnp.float32)
  logits, out = jax.eval_shape(lambda v, x: model.apply(v, x), expected_variables(model), clips)
  assert logits.shape == (2, 400) and out['stage4'].shape == (2, 8, 7, 7, 2048)
