"""A run of a few steps, and the network of it: what many tests train, test or look at."""

import types

from configs import digits
from ctx_flax.tasks.classification.networks import build_model
from ctx_flax.tasks.classification.task import TASK
from ctx_flax.training import optimizer, setup

STEPS = 6


def tiny_config():
  """Six steps of a network that compiles fast, with everything random that there is."""
  config = digits.get_config()
  config.model.update(depths=(1, 1, 1, 1), dims=(16, 32, 32, 32), embed_dim=8, drop_path_rate=0.2)
  config.optimizer.warmup_epochs = 0.0
  config.train.update(
    batch_size=16, steps=STEPS, ema_decay=0.5, log_every=1, eval_every=0, checkpoint_every=2
  )
  config.eval.batch_size = 120
  return config


def model_and_optimizer(config, classes=10):
  """The network of a config for so many classes, and an optimizer with a rate of 1e-3."""
  source = types.SimpleNamespace(num_classes=classes)
  return build_model(config, source), optimizer.make_optimizer(config, 1e-3)


def initial_state(config, model, tx):
  """The state at step 0 of a run of classification."""
  return setup.initial_state(config, TASK, model, tx)
