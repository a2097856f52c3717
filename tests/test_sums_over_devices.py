"""What a training step sends between devices, counted in the program that XLA makes for eight of them."""

import math
import re

import jax
import pytest
from steps import random_batch
from tiny import initial_state, model_and_optimizer, tiny_config

from ctx_flax.tasks.classification.task import TASK
from ctx_flax.training import parallel
from ctx_flax.training import step as steps

ALL_REDUCE = re.compile(r'= (.*) all-reduce(?:-start)?\(')
SHAPE = re.compile(r'\w\[([\d,]*)\]')
FEW = 100  # losses, metrics and the counts that they are divided by


def sums_over_devices(config):
  """([how many numbers each all-reduce adds up, ...], the state) of a training step."""
  model, tx = model_and_optimizer(config)
  step = steps.make_train_step(TASK.objective(config, model, config.train.steps), tx, config)
  state = initial_state(config, model, tx)
  run = jax.pmap(step, parallel.AXIS, in_axes=(None, 0), out_axes=(None, None))
  program = run.lower(state, parallel.shard_batch(random_batch(0))).compile().as_text()
  numbers = [
    sum(math.prod(map(int, filter(None, shape.split(',')))) for shape in SHAPE.findall(shapes))
    for shapes in ALL_REDUCE.findall(program)
  ]
  return numbers, state


def size(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def check_gradients(config):
  """Each is sent once, in a few messages however many parameters there are."""
  numbers, state = sums_over_devices(config)
  assert len(numbers) <= 4 < len(jax.tree.leaves(state.params))
  assert size(state.params) <= sum(numbers) < size(state.params) + FEW


@pytest.mark.slow
def test_gradients_are_summed_at_once():
  check_gradients(tiny_config())


@pytest.mark.slow
def test_batch_norm_adds_small_sums():
  """Its mean and variance, and the gradients of both, beside the gradients of parameters."""
  config = tiny_config()
  config.model.name, config.model.drop_path_rate = 'ctx_resnet_mini', 0.0
  numbers, state = sums_over_devices(config)
  channels = size(state.batch_stats)  # of means and variances
  large = [number for number in numbers if number > channels]
  # Some gradients of its own parameters go with the small ones.
  assert len(large) <= 3 and sum(large) >= size(state.params) - channels
  assert len(numbers) - len(large) <= 2 * len(jax.tree.leaves(state.batch_stats))
  assert size(state.params) <= sum(numbers) <= size(state.params) + 2 * channels + FEW
