"""Training steps of whole networks: contextual beside plain, with and without rematerialisation."""

import types

import jax
import jax.numpy as jnp

from benchmarks.measure import median, program, ratio, take_turns
from benchmarks.models import PAIRS
from configs import convnext_t, resnet50
from ctx_flax.tasks.classification import networks
from ctx_flax.tasks.classification.task import TASK
from ctx_flax.training import optimizer, setup
from ctx_flax.training import step as steps
from ctx_flax.training.parallel import AXIS

RECIPES = {'convnext_t': convnext_t, 'resnet50': resnet50}


def run(settings):
  """[row, ...], for each pair the plain network first."""
  rows = []
  for plain, contextual in PAIRS:
    made = {
      (name, remat): train_step(plain, name == plain, remat, settings)
      for name in (plain, contextual)
      for remat in (False, True)
    }
    seconds = take_turns({key: one.run for key, one in made.items()}, settings.rounds)
    for (name, remat), one in made.items():
      took = seconds[name, remat]
      rows.append(
        {
          'training step': name + (', remat' if remat else ''),
          'images/s': settings.batch / median(took),
          'of plain': ratio(seconds[plain, remat], took),
          'temp MB': one.temp_bytes / 1e6,
          'trace s': one.trace_seconds,
          'compile s': one.compile_seconds,
        }
      )
  return rows


def train_step(recipe, plain, remat, settings):
  """One step of a recipe on one device, at the batch of the settings."""
  config = RECIPES[recipe].get_config('plain' if plain else '')
  config.model.update(remat=remat, dtype=settings.dtype)
  config.train.update(batch_size=settings.batch, accumulation=1)
  config.data.image_size = settings.image_size
  return compiled_step(config, num_classes=1000, b=settings.batch)


def compiled_step(config, num_classes, b):
  """A Program of one training step of a config on one device, for batches of b images."""
  model = networks.build_model(config, types.SimpleNamespace(num_classes=num_classes))
  tx = optimizer.make_optimizer(config, config.optimizer.learning_rate, network=model)
  state = setup.initial_state(config, TASK, model, tx)
  side = config.data.image_size
  batch = {
    'image': jnp.ones((1, b, side, side, 3), jnp.float32),
    'label': jnp.arange(b, dtype=jnp.int32)[None] % num_classes,
    'weight': jnp.ones((1, b), jnp.float32),
  }
  if config.data.mixup:
    batch |= {'other_label': batch['label'][:, ::-1], 'lam': 0.7 * batch['weight']}
  step = steps.make_train_step(TASK.objective(config, model, 1000), tx, config)
  # One device, with the axis that the step sums over.
  one = jax.vmap(step, in_axes=(None, 0), out_axes=(None, None), axis_name=AXIS)
  return program(one, state, batch)
