"""The recipes of detection: ConvNeXt's numbers, and full-size detectors by shape."""

import jax
import jax.numpy as jnp
import pytest
from networks import slow_unless

from configs import coco_cascade, coco_mask_rcnn, coco_tiny, patches
from ctx_flax.configs import paths, rules
from ctx_flax.models import create_model
from ctx_flax.models.weight_files import flatten
from ctx_flax.models.weights import expected_variables
from ctx_flax.tasks.classification.networks import model_keywords as classifier_keywords
from ctx_flax.tasks.detection.networks import model_keywords
from ctx_flax.tasks.detection.task import TASK
from ctx_flax.training import optimizer, starting_point
from ctx_flax.training import step as steps
from ctx_flax.training.parallel import AXIS
from ctx_flax.training.state import create_state

RECIPES = {'mask_rcnn': coco_mask_rcnn, 'cascade_mask_rcnn': coco_cascade}
PARAMETERS = {'mask_rcnn': 48_095_376, 'cascade_mask_rcnn': 85_930_578}  # of MMDetection's detectors, plain T
IMAGES = 117_266  # of COCO's training set that are trained on


def detector(config):
  return create_model(**model_keywords(config, config.model.num_classes))


def numbers(config):
  """What ConvNeXt's configuration says of a recipe."""
  o, t = config.optimizer, config.train
  return {
    'rate': (o.name, o.learning_rate, o.layer_decay, o.weight_decay, (o.beta1, o.beta2), o.eps, o.clip_norm),
    'schedule': (t.epochs, o.schedule, o.drops, o.drop_factor, o.warmup_steps, o.warmup_factor),
    'batch': (t.batch_size, o.reference_batch, t.ema_decay),
    'drop_path': config.model.drop_path_rate,
    'proposals': (config.model.train_pre_nms, config.model.train_proposals, config.model.allowed_border),
    'tests': (config.model.test_proposals, config.model.score_threshold, config.model.nms_threshold),
    'losses': tuple(config.loss.values()),
  }


MASK = {
  'rate': ('adamw', 1e-4, 0.95, 0.05, (0.9, 0.999), 1e-8, 0),
  'schedule': (36, 'steps', (27, 33), 0.1, 500, 0.001),
  'batch': (16, 16, 0),
  'drop_path': 0.4,
  'proposals': (2000, 1000, -1),
  'tests': (1000, 0.05, 0.5),
  'losses': (0.0, 'l1', 1.0, (1.0,)),
}
CASCADE = MASK | {
  'rate': ('adamw', 2e-4, 0.7, 0.05, (0.9, 0.999), 1e-8, 0),
  'proposals': (2000, 2000, 0),
  'losses': (1 / 9, 'giou', 10.0, (1.0, 0.5, 0.25)),
}


@pytest.mark.parametrize('name, expected', [('mask_rcnn', MASK), ('cascade_mask_rcnn', CASCADE)])
def test_the_numbers_are_those_of_convnext(name, expected):
  recipe = RECIPES[name]
  assert numbers(recipe.get_config()) == numbers(recipe.get_config('plain')) == expected
  assert numbers(recipe.get_config('s')) == expected | {'drop_path': 0.6}
  base = numbers(recipe.get_config('plain_b'))
  assert base['drop_path'] == 0.7 and base['rate'][2] == (0.95 if name == 'mask_rcnn' else 0.8)
  config = recipe.get_config()
  rate = optimizer.learning_rate_schedule(config, IMAGES / 16)
  peak = config.optimizer.learning_rate
  steps_and_rates = {0: 0.001, 250: 0.5005, 500: 1, 197_880: 1, 197_890: 0.1, 241_870: 0.01, 263_840: 0.01}
  assert [float(rate(step)) for step in steps_and_rates] == pytest.approx(
    [peak * factor for factor in steps_and_rates.values()], rel=1e-3
  )


@pytest.mark.parametrize(
  'recipe', [coco_mask_rcnn, coco_cascade, coco_tiny], ids=lambda recipe: recipe.__name__
)
def test_variants_are_legal_and_make_detectors(recipe):
  for variant in ('', *recipe.VARIANTS):
    if isinstance(recipe.VARIANTS.get(variant, {}), dict):
      config = recipe.get_config(variant)
      rules.check(config)
      TASK.check_batches(config)
      TASK.check_settings(config)
      model = detector(config)
      assert model.contextual == (not variant.startswith('plain'))
      assert model.stages == len(config.loss.stage_weights)
      assert model.dtype == (jnp.float32 if variant == 'float32' or recipe is coco_tiny else jnp.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize('variant, name', [('patches', ''), ('plain_patches', 'plain')])
def test_the_backbone_may_be_the_network_of_patches(variant, name):
  config = patches.get_config(name)
  classifier = create_model(**classifier_keywords(config, 200))
  config = coco_tiny.get_config(variant)
  config.model.context_classes = 200  # as the weights say
  theirs = {key: x.shape for key, x in flatten(expected_variables(classifier)['params']).items()}
  ours = {key: x.shape for key, x in flatten(expected_variables(detector(config))['params']).items()}
  backbone = {
    key.removeprefix('backbone/'): shape for key, shape in ours.items() if key.startswith('backbone/')
  }
  lacking = {key for key in backbone if theirs.get(key) != backbone[key]}
  assert len(backbone) > 50 and all('output_norm' in key for key in lacking)


def test_fields_of_detectors_have_their_defaults():
  """But for what Cascade R-CNN has of its own, the defaults of the config are those of the detectors."""
  config = coco_mask_rcnn.get_config('float32,plain')
  bare = create_model(
    'mask_rcnn', backbone='convnext_t', drop_path_rate=0.4, layer_scale_init=1.0, dtype='float32'
  )
  assert detector(config).clone(param_dtype=bare.param_dtype) == bare
  config = coco_cascade.get_config('float32,plain')
  cascade = create_model(
    'cascade_mask_rcnn', backbone='convnext_t', drop_path_rate=0.4, layer_scale_init=1.0, dtype='float32'
  )
  assert detector(config).clone(param_dtype=cascade.param_dtype) == cascade


@pytest.mark.parametrize('name', slow_unless(RECIPES, 'mask_rcnn'))
def test_parameters(name):
  plain, contextual = (
    expected_variables(detector(RECIPES[name].get_config(v)))['params'] for v in ('plain', '')
  )
  size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
  assert size(plain) == PARAMETERS[name]
  # What is contextual is all in the backbone.
  assert {k: size(v) for k, v in contextual.items() if k != 'backbone'} == {
    k: size(v) for k, v in plain.items() if k != 'backbone'
  }


def test_what_is_frozen_and_what_learns_how_fast():
  config = coco_mask_rcnn.get_config()
  config.init.weights = 'RUN'
  model = detector(config)
  factor = starting_point.rate_factor(config, TASK.fresh(config), model)
  names = [name.removeprefix('params/') for name in flatten({'params': expected_variables(model)['params']})]
  frozen = {name for name in names if not factor(name)}
  decides = {
    name
    for name in names
    if 'class_embedding' in name or 'logit_scale' in name or 'contextualizer/head' in name
  }
  assert frozen == decides and len(decides) > 10


@pytest.mark.slow
@pytest.mark.parametrize('name, variant', [(name, variant) for name in RECIPES for variant in ('', 'plain')])
def test_the_full_size_step_fits_together(name, variant):
  """On eight devices: the step keeps the shapes of the state; all boxes and losses are float32."""
  config = RECIPES[name].get_config(variant)
  model = detector(config)
  tx = optimizer.make_optimizer(config, 1e-4, network=model)
  state = jax.eval_shape(
    lambda: create_state(TASK.initial_variables(config, model, jax.random.key(0)), tx, False)
  )
  h, w = 800, 1344
  shape = jax.ShapeDtypeStruct
  batch = {
    'image': shape((8, 2, h, w, 3), jnp.uint8),
    'image_hw': shape((8, 2, 2), jnp.int32),
    'index': shape((8, 2), jnp.int32),
    'boxes': shape((8, 2, 100, 4), jnp.float32),
    'labels': shape((8, 2, 100), jnp.int32),
    'masks': shape((8, 2, 100, h, w // 8), jnp.uint8),
    'weight': shape((8, 2), jnp.float32),
  }
  step = steps.make_train_step(TASK.objective(config, model, 100), tx, config)
  step = jax.vmap(step, in_axes=(None, 0), out_axes=(None, None), axis_name=AXIS)
  new, terms = jax.eval_shape(step, state, batch)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), new) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
  assert {leaf.dtype for leaf in jax.tree.leaves(terms)} == {jnp.dtype('float32')}
  assert set(TASK.objective(config, model, 100).weights) <= set(terms)


def test_a_tiny_recipe_keeps_the_same_budget():
  contextual, plain = (dict(paths.leaves(coco_tiny.get_config(variant))) for variant in ('', 'plain'))
  assert {name for name in plain if plain[name] != contextual[name]} == {'model.backbone', 'init.freeze'}
