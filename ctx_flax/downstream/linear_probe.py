"""Linear probe: a new class head on the frozen network's pooled features (the paper, Table 3)."""

import json
import os
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.table

from ctx_flax import files
from ctx_flax.data import sources
from ctx_flax.downstream.features import extract
from ctx_flax.layers.linear import uniform_fan_in
from ctx_flax.tasks import check_served, task_of
from ctx_flax.tasks.classification import metrics, networks
from ctx_flax.terminal import console
from ctx_flax.training import distributed, restore, setup
from ctx_flax.training.halt import bad_data, bad_input, failed_report
from ctx_flax.training.repeats import percent


def linear_probe(config, workdir):
  """Probes the networks of probe.weights and probe.plain_weights on the same images; prints one table.

  The networks stay as they are, BatchNorm in inference mode. A linear head, initialised like PyTorch's, is
  trained on the features of the centre crops with AdamW at a constant rate; no augmentation, as features are
  extracted once. Features are cached by weights, images and transform, so that only the first run takes long.

  Args:
    config: uses probe, data, eval, model (the contextual network, where its weights do not tell it) and seed.
    workdir: the report goes to workdir/linear_probe.json.

  Returns:
    {'contextual': {'top1': [float, ...], 'top5': ..., 'train_top1': ..., 'weights', 'model'}, 'plain': ...},
    a number for each of the seeds.

  Raises:
    Halt: the input is wrong (status 2), or the report could not be written (1).
  """
  workdir = pathlib.Path(os.path.expanduser(workdir))
  with bad_input():
    check_served(config, 'the linear probe')
    setup.prepare_jax(config)
    probe = config.probe
    distributed.check_alone('the linear probe')
    given = {
      'contextual': (probe.weights, config.model.name),
      'plain': (probe.plain_weights, probe.plain_model),
    }
    given = {kind: pair for kind, pair in given.items() if pair[0]}
    if not given:
      raise ValueError('give --config.probe.weights=FILE, --config.probe.plain_weights=FILE, or both')
    _check_settings(probe)
    train_source, test_source = (sources.open_source(config.data, split) for split in sources.SPLITS)
    setup.check_settings(config, task_of(config))
    networks.check_classes(train_source, test_source)
    probed = {kind: network(path, name, config) for kind, (path, name) in given.items()}
    for kind, (model, _, name) in probed.items():
      if model.contextual != (kind == 'contextual'):
        raise ValueError(f'{given[kind][0]} holds {name}, which is not the {kind} network')
  report = {}
  with bad_data():
    for kind, (model, variables, name) in probed.items():
      train = extract(model, variables, train_source, config, probe.cache, f'{name}, training images')
      test = extract(model, variables, test_source, config, probe.cache, f'{name}, test images')
      seeds = range(config.seed, config.seed + probe.seeds)
      found = [fit_head(train[0], train[1], train_source.num_classes, probe, seed) for seed in seeds]
      report[kind] = {
        'model': name,
        'weights': given[kind][0],
        'images': [len(train[1]), len(test[1])],
        'train_top1': [accuracy(head, train, 1) for head in found],
        'top1': [accuracy(head, test, 1) for head in found],
        'top5': [accuracy(head, test, 5) for head in found],
      }
  _print(report, config, train_source.num_classes)
  path = workdir / 'linear_probe.json'
  with failed_report(path):
    text = json.dumps({'networks': report, 'config': config.to_dict()}, indent=2)
    files.write_text(path, text + '\n')
  print(f'{files.printable(path)} holds the numbers', flush=True)
  return report


def network(path, name, config):
  """(model, variables, name) of a run's folder, a file of ours, or PyTorch weights of the network `name`."""
  found = restore.read_weights(path)
  about = found.about['model']
  settings = config.copy_and_resolve_references()
  settings.model.name = name
  known = {field: value for field, value in about.items() if field in settings.model}
  settings.model.update({field: tuple(v) if isinstance(v, list) else v for field, v in known.items()})
  settings.model.num_classes = 0
  classes = types.SimpleNamespace(num_classes=about['num_classes'] or 2)
  model = networks.build_model(settings, classes)
  # Weights without a class head are good enough for plain features.
  variables, _ = found.fit(model, allow_missing=() if model.contextual else ('head',))
  return model, variables, settings.model.name


def fit_head(features, labels, num_classes, probe, seed):
  """A linear head {'kernel' (c, n), 'bias' (n,)} trained on features (m, c) and labels (m,).

  Args:
    features, labels: arrays of all images.
    num_classes: n.
    probe: config.probe; batches of probe.batch_size images (all, where there are fewer) in a new order every
      epoch.
    seed: of the initial values and the order.
  """
  size = min(probe.batch_size, len(labels))
  rng = np.random.default_rng(seed)
  epochs = -(-probe.iterations * size // len(labels))
  order = np.concatenate([rng.permutation(len(labels)) for _ in range(epochs)])
  order = order[: probe.iterations * size].reshape(probe.iterations, size)
  init = uniform_fan_in(features.shape[1])
  keys = jax.random.split(jax.random.key(seed))
  head = {'kernel': init(keys[0], (features.shape[1], num_classes)), 'bias': init(keys[1], (num_classes,))}
  rates = jnp.float32(probe.learning_rate), jnp.float32(probe.weight_decay)
  return _train(head, jnp.asarray(features), jnp.asarray(labels), jnp.asarray(order, jnp.int32), *rates)


@jax.jit
def _train(head, features, labels, order, learning_rate, weight_decay):
  tx = optax.adamw(learning_rate, weight_decay=weight_decay)

  def step(carry, rows):
    head, state = carry

    def loss(head):
      scores = features[rows] @ head['kernel'] + head['bias'][None]
      return optax.softmax_cross_entropy_with_integer_labels(scores, labels[rows]).mean()

    updates, state = tx.update(jax.grad(loss)(head), state, head)
    return (optax.apply_updates(head, updates), state), None

  (head, _), _ = jax.lax.scan(step, (head, tx.init(head)), order)
  return head


def accuracy(head, data, k):
  """Share of the images of (features, labels) whose label is among the k best scores, ties by class."""
  features, labels = data
  return float((_ranks(head, features, labels) < k).mean())


@jax.jit
def _ranks(head, features, labels):
  scores = features @ head['kernel'] + head['bias'][None]
  return metrics.rank_of_label(scores, jnp.ones_like(scores, bool), labels)


def _check_settings(probe):
  for name in ('iterations', 'batch_size', 'seeds'):
    if probe[name] < 1:
      raise ValueError(f'probe.{name} must be 1 or more, but is {probe[name]}')
  for name in ('learning_rate', 'weight_decay'):
    if probe[name] < 0:
      raise ValueError(f'probe.{name} must be 0 or more, but is {probe[name]}')


def _print(report, config, num_classes):
  table = rich.table.Table(title=f'Linear probe, {num_classes} classes, {config.data.image_size} px')
  for column in ('network', 'top-1 %', 'top-5 %', 'in training %'):
    table.add_column(column, justify='right' if '%' in column else 'left', no_wrap=True)
  for row in report.values():
    table.add_row(row['model'], *(percent(row[name]) for name in ('top1', 'top5', 'train_top1')))
  console().print(table)
