"""What is compared on emoji: the arms, and the recipe that all runs share."""

import dataclasses
import pathlib
from typing import Any

from configs import emoji
from experiments import arms
from experiments.side_by_side import Place

STEPS = 4000  # S, batches of 64 images
FEWEST_STEPS = 20  # a twentieth of them is the warm-up, a quarter the length of the runs that choose rates
SEEDS = 3
# Three for each family: class embeddings, which are normalised, want lower ones than a linear head.
RATES = {'plain': (1e-3, 2e-3, 4e-3), 'contextual': (5e-4, 1e-3, 2e-3)}
SEED_OF_RATES = 1000  # of the runs that learning rates are chosen by; no other run has it
TEST_IMAGES = 8000
STEM_STRIDES = {32: 2, 64: 4}  # by the side of the images: maps of 16, 8, 4 and 2 pixels a side for both

# Name of an arm -> what it is, in words.
COMPARED = {
  name: arms.ARMS[name]
  for name in ('plain', 'plain-wide', 'naive', 'reduction', 'reduction-warmup', 'rerank')
}
# From plain to contextual, one part at a time. All of them consider all classes, as 'naive'.
LADDER = {
  'cosine': 'class embeddings and cosine scores instead of the linear head',
  'losses': 'the losses of stages 1 to 3',
  'sampling': 'the sampling branch, without a context',
  'kernel': 'the kernel branch, without a context',
}
ABLATED = {
  'cosine': ('offsets', 'mask', 'kernel_delta', 'context'),
  'losses': ('offsets', 'mask', 'kernel_delta', 'context'),
  'sampling': ('kernel_delta', 'context'),
  'kernel': ('context',),
}
SELECTING = 'reduction', 'reduction-warmup', 'rerank'  # arms that need class counts


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The options of the command line.

  Attributes:
    data: folder of the pictures.
    workdir: folder of the experiment.
    size: side of the images.
    steps: S.
    seeds: runs of each arm.
    at: the places where runs run.
  """

  data: pathlib.Path
  workdir: pathlib.Path
  size: int = 32
  steps: int = STEPS
  seeds: int = SEEDS
  at: tuple[Place, ...] = (Place(),)


def base_config(experiment: Experiment) -> Any:
  """The recipe that all runs share."""
  config = emoji.get_config()
  config.data.path = str(experiment.data.expanduser().absolute())
  config.data.image_size = experiment.size
  config.data.test_images = TEST_IMAGES
  config.data.images_per_class = 1000  # a million: 2 S steps see none of them twice
  config.model.num_classes = config.data.classes
  config.model.dims = (16, 32, 64, 128)
  config.model.stem_stride = STEM_STRIDES[experiment.size]
  config.train.batch_size = 64
  config.train.ema_decay = 0.0  # the cosine ends near the average
  config.train.class_counts_warmup = 0.0
  config.train.eval_every = 0
  config.train.checkpoint_minutes = 3.0
  config.train.keep_best = False
  config.train.keep_checkpoints = 1
  config.eval.batch_size = 250
  return config


def arm_config(name: str, base: Any, *, steps: int, seed: int, rate: float, counts: tuple = ()) -> Any:
  """The config of one run of an arm of COMPARED or LADDER."""
  config = arms.arm_config('naive' if name in LADDER else name, base, counts)
  config.model.ablate = ABLATED.get(name, ())
  if name == 'cosine':
    config.loss.alpha = 0.0
  config.seed = seed
  config.train.steps = steps
  config.optimizer.warmup_steps = steps // 20
  config.optimizer.learning_rate = rate
  return config


def family(name: str) -> str:
  """The name in RATES of the family that an arm is of."""
  return 'plain' if name.startswith('plain') else 'contextual'


def has_context(config: Any) -> bool:
  """Whether the contextual convolutions of a network read a context."""
  return config.model.name.startswith('ctx_') and 'context' not in config.model.ablate
