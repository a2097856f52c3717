"""The experiments on emoji: what is compared, in which order, and what is chosen on which images.

Everything that is chosen is chosen on validation images: other images of the training styles. Finished runs
are tested on the test styles, and nothing is chosen by the results.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from configs import emoji
from experiments import arms, emoji_variations, side_by_side, times
from experiments.results import read_result

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
  at: tuple[side_by_side.Place, ...] = (side_by_side.Place(),)


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


def run(experiment: Experiment, rounds: int = 5) -> dict[str, Any]:
  """Does all that is not done yet, and writes the tables as runs end.

  Args:
    experiment: what is done.
    rounds: of timing the steps; 0 leaves it out.

  Returns:
    The content of evidence.json.
  """
  from experiments import emoji_tables

  more: dict[str, dict[str, Any]] = {}
  base, folder, at = base_config(experiment), experiment.workdir, experiment.at
  steps, seeds = experiment.steps, range(experiment.seeds)
  rates = _choose_rates(experiment, base)
  naive = 'naive/seed-0'
  config = arm_config('naive', base, steps=steps, seed=0, rate=rates['contextual'])
  side_by_side.run_each('train', {f'{steps}/{naive}': config}, folder, at)
  side_by_side.run_each('recall', {f'{steps}/{naive}': config}, folder, at)
  counts = tuple(read_result(folder / f'{steps}/{naive}', 'recall')['all'])
  write = lambda *_: emoji_tables.write(experiment, rates, counts, more)
  made = lambda name, total, seed: arm_config(
    name, base, steps=total, seed=seed, rate=rates[family(name)], counts=counts
  )
  for total, names in ((steps, (*COMPARED, *LADDER)), (2 * steps, COMPARED)):
    # Seeds outermost: stopped at any time, all arms have as many, but for one.
    configs = {f'{total}/{name}/seed-{seed}': made(name, total, seed) for seed in seeds for name in names}
    side_by_side.run_each('train', configs, folder, at, write)
    side_by_side.run_each('validate', configs, folder, at, write)
    contextual = {name: config for name, config in configs.items() if has_context(config)}
    side_by_side.run_each('context', contextual, folder, at, write)
  varied = {
    f'{steps}/{name}/seed-{seed}': emoji_variations.varied(name, made(arm, steps, seed))
    for seed in seeds
    for name, (arm, _, _) in emoji_variations.VARIATIONS.items()
  }
  for job in ('train', 'validate', 'context'):
    side_by_side.run_each(job, varied, folder, at, write)
  more |= times.sizes_and_times({name: made(name, steps, 0) for name in (*COMPARED, *LADDER)}, rounds)
  return write()


def family(name: str) -> str:
  """The name in RATES of the family that an arm is of."""
  return 'plain' if name.startswith('plain') else 'contextual'


def has_context(config: Any) -> bool:
  """Whether the contextual convolutions of a network read a context."""
  return config.model.name.startswith('ctx_') and 'context' not in config.model.ablate


def _choose_rates(experiment, base):
  """{family: the rate with the best accuracy on validation images, mean over its arms that need no counts}.

  One arm alone cannot tell two rates apart after so few steps.
  """
  base = base.copy_and_resolve_references()
  base.data.test_styles = 'training'
  names = [name for name in (*COMPARED, *LADDER) if name not in SELECTING]
  configs = {
    f'rates/{name}/{rate:g}': arm_config(
      name, base, steps=experiment.steps // 4, seed=SEED_OF_RATES, rate=rate
    )
    for name in names
    for rate in RATES[family(name)]
  }
  results = side_by_side.run_each('train', configs, experiment.workdir, experiment.at)

  def accuracy(of, rate):
    return np.mean([results[f'rates/{name}/{rate:g}']['accuracy'] for name in names if family(name) == of])

  return {of: max(rates, key=lambda rate: accuracy(of, rate)) for of, rates in RATES.items()}
