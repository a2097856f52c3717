"""What is compared: contextual networks with each kind of selection, and plain ones, all under one recipe."""

import math

import jax
import jax.numpy as jnp

from configs import digits, glyphs, patches
from ctx_flax.models import create_model
from ctx_flax.tasks.classification import networks

# Name of the data -> its recipe, with a network and as many steps as two cores train in a minute or two.
TINY = {
  'model.dims': (16, 32, 64, 128),
  'model.stem_stride': 2,
  'train.batch_size': 64,
  'train.eval_every': 0,
  'train.ema_decay': 0.0,  # runs this short end near their average
}
DATA = {
  # A tenth of an epoch: the recipe's whole one would be most of so short a run.
  'patches': (patches, TINY | {'train.steps': 400, 'optimizer.warmup_epochs': 0.1}),
  'glyphs': (
    glyphs,
    TINY | {'train.steps': 600, 'data.classes': 100, 'model.num_classes': 100},
  ),
  'digits': (digits, TINY | {'train.steps': 150}),
}
# Name of an arm -> what it is, in words.
ARMS = {
  'plain': 'plain',
  'plain-wide': 'plain, widened to the parameters of the contextual one',
  'naive': 'contextual, all classes at every stage (naive)',
  'reduction': 'contextual, reduction, counts of the recall curves',
  'reduction-warmup': 'the same, counts shrinking over 60 % of the steps',
  'rerank': 'contextual, rerank, counts of the recall curves',
  'shares': "contextual, reduction, the paper's shares of the classes",
  'shares-warmup': 'the same, counts shrinking over 60 % of the steps',
}
WARMUP = 0.6
STEP = 4  # channels by which a plain network is widened


def base_config(data, steps=0, warmup_epochs=None):
  """The recipe that all arms of a data set share; steps above 0 and a given warm-up replace its own."""
  recipe, changes = DATA[data]
  config = recipe.get_config()
  config.train.class_counts_warmup = 0.0
  for field, value in changes.items():
    group, _, name = field.partition('.')
    config[group][name] = value
  config.model.class_counts = ()
  if steps:
    config.train.steps = steps
  if warmup_epochs is not None:
    config.optimizer.warmup_epochs = warmup_epochs
  return config


def arm_config(name, config, counts=()):
  """The config of an arm.

  Args:
    name: of ARMS.
    config: what `base_config` returned.
    counts: N_2, N_3, N_4 that the recall curves of a naive run suggest.
  """
  config = config.copy_and_resolve_references()
  model = config.model
  if name.startswith('plain'):
    contextual = networks.model_keywords(config, model.num_classes)
    model.name = model.name.removeprefix('ctx_')
    if name == 'plain-wide':
      model.dims = widened(contextual | {'name': model.name}, parameters(contextual, config), config)
    return config
  if name == 'naive':
    model.class_counts = (model.num_classes,) * 3
  elif not name.startswith('shares'):
    model.class_counts = tuple(counts)
  if name == 'rerank':
    model.class_selection = 'rerank'
  if name.endswith('-warmup'):
    config.train.class_counts_warmup = WARMUP
  return config


def parameters(keywords, config):
  """The number of parameters of create_model(**keywords)."""
  side = config.data.image_size
  model = create_model(**keywords)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False)['params']
  )
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def widened(keywords, wanted, config):
  """The dims of a network, all times one factor, with which it comes nearest to `wanted` parameters."""
  dims = keywords['dims']

  def by(factor):
    return tuple(STEP * round(dim * factor / STEP) for dim in dims)

  low, high = 1.0, 4.0
  for _ in range(10):
    middle = (low + high) / 2
    if parameters(keywords | {'dims': by(middle)}, config) < wanted:
      low = middle
    else:
      high = middle
  return min(
    (by(low), by(high)), key=lambda found: abs(parameters(keywords | {'dims': found}, config) - wanted)
  )
