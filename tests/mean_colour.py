"""A task of another kind than classification: regression of an image's mean colour, by a network of its own.

It compiles in no time: what training does whatever is learned is tested with it.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ctx_flax.configs import default
from ctx_flax.data import pipeline, sources
from ctx_flax.training.task import Objective, Outputs, Task

STEPS = 6


def settings(**train):
  """The config of six steps, tested on 60 images; `train` are fields of its group."""
  config = default.get_config(task='classification')
  config.task = 'mean_colour'
  config.model.num_classes = 10
  config.optimizer.learning_rate = 0.02
  config.data.update(name='digits', image_size=32, test_images=60, prefetch=0, threads=0)
  config.train.update(
    batch_size=16, steps=STEPS, ema_decay=0.5, log_every=1, eval_every=2, checkpoint_every=2
  )
  config.train.update(train)
  config.eval.update(batch_size=40, crop_ratio=1.0)
  return config


class Network(nn.Module):
  """Three numbers per image from nine of its pixels."""

  @nn.compact
  def __call__(self, images):
    return nn.Dense(3)(images[:, ::12, ::12].reshape(len(images), -1))


class Correlation:
  """Pearson's correlation over all images: no sum over batches."""

  def __init__(self):
    self._rows = []

  def add(self, rows):
    self._rows.append(rows)

  def result(self, sums):
    predicted, target = (np.concatenate([r[name] for r in self._rows]) for name in ('predicted', 'target'))
    correlation = np.corrcoef(predicted.ravel(), target.ravel())[0, 1]
    total, count = sums['error']
    return {'correlation': float(correlation), 'images': len(target), 'error': float(total / count)}


class MeanColour(Task):
  name, best = 'mean_colour', 'correlation'

  def open_source(self, config, split):
    return sources.open_source(config.data, split)

  def train_batches(self, source, config, start=0, process=0, processes=1):
    return pipeline.train_batches(source, config, start, process, processes)

  def eval_batches(self, source, config, process=0, processes=1):
    return pipeline.eval_batches(source, config, process, processes)

  def build_model(self, config, source):
    return Network()

  def initial_variables(self, config, model, key):
    return model.init(key, jnp.zeros((1, config.data.image_size, config.data.image_size, 3)))

  def objective(self, config, model, total_steps):
    def terms(params, batch_stats, batch, key, step):
      error = (model.apply({'params': params}, batch['image']) - batch['image'].mean((1, 2))) ** 2
      return Outputs({'error': (error.mean(-1).sum(), batch['weight'].sum())}, {}, {})

    return Objective(terms, {'error': 1.0}, lambda batch: {'error': batch['weight'].sum()})

  def evaluator(self, config, model, source):
    return Evaluator(model)

  def headline(self, results):
    return ', '.join(f'{name} correlation {of["correlation"]:.3f}' for name, of in results.items())


class Evaluator:
  def __init__(self, model):
    self._model = model

  def outputs(self, variables, batch):
    predicted, target = self._model.apply(variables, batch['image']), batch['image'].mean((1, 2))
    error = jnp.where(batch['weight'] > 0, ((predicted - target) ** 2).mean(-1), 0.0)
    return {'error': (error.sum(), batch['weight'].sum())}, {'predicted': predicted, 'target': target}

  def tally(self, weights):
    return Correlation()
