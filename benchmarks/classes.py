"""What the selection of classes costs in inference, by the number of classes, with and without tables."""

import jax
import jax.numpy as jnp

from benchmarks.measure import median, program, ratio, take_turns
from ctx_flax.models import create_model
from ctx_flax.models.inference import apply_in_turn

NETWORK = 'ctx_convnext_t'
NUM_CLASSES = 1000, 21841


def run(settings):
  """[row, ...]: for each number of classes without and with tables that are computed beforehand.

  The selection alone is timed on the pooled features of the whole batch; in the network it comes in between
  and may run on parts of the batch, so the network with the fewest classes is set beside the others.
  """
  selections, networks = {}, {}
  for num_classes in NUM_CLASSES:
    model = create_model(NETWORK, num_classes=num_classes, dtype=settings.dtype)
    side = settings.image_size
    images = jnp.ones((settings.batch, side, side, 3), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])
    pooled = [jnp.ones((settings.batch, dim), jnp.float32) for dim in model.dims]
    tables = jax.jit(model.class_tables)(variables)
    for beforehand in (False, True):
      given = {**variables, **tables} if beforehand else variables
      key = num_classes, beforehand
      selections[key] = program(selection_of(model), given, pooled)
      networks[key] = program(lambda v, x, model=model: apply_in_turn(model, v, x)[0], given, images)
  alone = take_turns({key: made.run for key, made in selections.items()}, settings.rounds)
  whole = take_turns({key: made.run for key, made in networks.items()}, settings.rounds)
  return [
    {
      'network': NETWORK,
      'classes': str(key[0]),
      'tables': 'beforehand' if key[1] else 'every time',
      'ms': 1e3 * median(took),
      'selection alone ms': 1e3 * median(alone[key]),
      '%': 100 * median(alone[key]) / median(took),
      f'% more than {NUM_CLASSES[0]}': 100 * (ratio(took, whole[NUM_CLASSES[0], key[1]]) - 1),
      'temp MB of selection': selections[key].temp_bytes / 1e6,
    }
    for key, took in whole.items()
  ]


def selection_of(model):
  """(variables, pooled features of the four stages) -> scores and contexts: all contextualizing layers."""
  contextualizer = model.make_contextualizer(parent=None)

  def selection(variables, pooled):
    own = {name: part['contextualizer'] for name, part in variables.items() if 'contextualizer' in part}
    return contextualizer.apply(own, pooled)

  return selection
