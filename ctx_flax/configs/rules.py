"""Which values the fields of a config may have: no nan, no negative size, nothing that cannot be allocated.

A rule is of one field alone. What depends on several, on the network or on the data is checked where it is
used, and so are names that other rooms keep a table of (`model.name`, `data.name`).
"""

import os
import pathlib
from typing import Any

from ctx_flax.configs import paths
from ctx_flax.configs.fields import TASKS
from ctx_flax.configs.kinds import Choice, Flag, Number, Regex, Rule, Text, Tuple, Whole

# Sizes above these are mistyped. The largest image sets in use have some 22,000 classes, the largest networks
# some thousand channels, the largest batches some ten thousand images of at most a thousand pixels a side: a
# wide margin over all of them, and still small enough that an attempt ends in an error, not in an hour.
CLASSES = 1_000_000
CHANNELS = 65_536
BLOCKS = 1000  # of a stage
SEGMENTS = 1024  # frames of a clip
BATCH = 1_048_576
SIDE = 8192  # of ConvNeXt's first patches
PROCESSES = 1024  # or threads, or batches, of which each holds a batch in memory
EPOCHS = 1_000_000.0
DTYPES = 'float32', 'bfloat16', 'float16', 'float64'
ABLATIONS = 'offsets', 'mask', 'kernel_delta', 'context'  # as the layers know them, which import jax
SEED = Whole(0, 2**32 - 1, 'between 0 and 2**32 - 1')
FRACTION_BELOW_1 = Number(0, 1, below=True, text='at least 0 and below 1')

RULES: dict[str, Rule] = {
  'seed': SEED,
  'compilation_cache': Text(),
  'profile': Flag(),
  'model.name': Text(),
  'model.num_classes': Whole(0, CLASSES),
  # How many stages there are depends on the network.
  'model.depths': Tuple(Whole(1, BLOCKS), f'must hold whole numbers, 1 to {BLOCKS}'),
  'model.dims': Tuple(Whole(1, CHANNELS), f'must hold whole numbers, 1 to {CHANNELS}'),
  'model.embed_dim': Whole(1, CHANNELS),
  'model.class_counts': Tuple(Whole(1, CLASSES), f'must hold whole numbers, 1 to {CLASSES}'),
  'model.class_selection': Text(),
  'model.contextual_every': Whole(0, BLOCKS),
  'model.mask_gain': Number(0),
  'model.ablate': Tuple(Choice(ABLATIONS)),
  'model.branch_dim': Whole(0, CHANNELS),
  'model.drop_path_rate': FRACTION_BELOW_1,
  'model.drop_path_in_contextual': Flag(),
  'model.layer_scale_init': Number(0),
  'model.stem_stride': Whole(1, SIDE),
  'model.branch_scale_init': Number(0),
  'model.logit_scale_init': Number(0, above=True),
  'model.merge_contrast': Flag(),
  'model.segments': Whole(1, SEGMENTS),
  'model.temporal_shift': Flag(),
  'model.context': Text(),
  'model.dropout': FRACTION_BELOW_1,
  'model.depthwise_path': Text(),
  'model.remat': Flag(),
  'model.dtype': Choice(DTYPES),
  'model.param_dtype': Choice(DTYPES),
  'init.weights': Text(),
  'init.allow_missing': Tuple(Regex()),
  'init.freeze': Tuple(Regex()),
  'init.freeze_norm': Flag(),
  'init.pretrained_rate': Number(0, text='a factor of 0 or more'),
  'optimizer.name': Choice(('adamw', 'sgd')),
  'optimizer.learning_rate': Number(0),
  'optimizer.reference_batch': Whole(0, text='0 (off) or the batch that learning_rate is meant for'),
  'optimizer.weight_decay': Number(0),
  'optimizer.no_decay': Tuple(Regex()),
  'optimizer.beta1': FRACTION_BELOW_1,
  'optimizer.beta2': FRACTION_BELOW_1,
  'optimizer.eps': Number(0),
  'optimizer.momentum': FRACTION_BELOW_1,
  'optimizer.nesterov': Flag(),
  'optimizer.clip_norm': Number(0, text='0 (off) or more'),
  'optimizer.schedule': Choice(('cosine', 'steps', 'constant')),
  'optimizer.drops': Tuple(Number(0, EPOCHS, above=True)),
  'optimizer.drop_factor': Number(0, 1, above=True),
  'optimizer.warmup_epochs': Number(0, EPOCHS),
  'optimizer.warmup_steps': Whole(0),
  'optimizer.warmup_start': Number(0),
  'optimizer.warmup_factor': Number(0, 1),
  'optimizer.floor': Number(0),
  'optimizer.cooldown_epochs': Number(0, EPOCHS),
  'optimizer.per_epoch': Flag(),
  'optimizer.layer_decay': Number(0, 1, above=True),
  'optimizer.groups': Tuple(
    Tuple((Regex(), Number(0), Number(0))),
    'must hold (regex, factor on the rate, factor on the decay), ... with factors of 0 or more',
  ),
  'train.batch_size': Whole(1, BATCH),
  'train.accumulation': Whole(1, BATCH),
  'train.epochs': Number(0, EPOCHS),
  'train.steps': Whole(0),
  'train.ema_decay': Number(0, 1, below=True, text='at least 0 (off) and below 1'),
  'train.on_nan': Choice(('stop', 'skip')),
  'train.deterministic': Flag(),
  'train.log_every': Whole(0),
  'train.eval_every': Whole(0),
  'train.checkpoint_every': Whole(0),
  'train.checkpoint_minutes': Number(0),
  'train.keep_checkpoints': Whole(1),
  'train.keep_best': Flag(),
  'eval.batch_size': Whole(1, BATCH),
  'eval.checkpoint': Text(r'latest|best|\d+', 'latest, best or the number of a step'),
  'eval.weights': Choice(('all', 'raw', 'EMA')),
  'check.compile': Flag(),
  'data.name': Text(),
  'data.path': Text(),
  'data.train_split': Text(),
  'data.test_split': Text(),
  'data.mean': Tuple(Number(float('-inf')), 'must hold 1 or 3 values, numbers of pixels in 0..1', (1, 3)),
  'data.std': Tuple(Number(0, above=True), 'must hold 1 or 3 values above 0', (1, 3)),
  'data.split_seed': SEED,
  'data.on_bad_image': Choice(('skip', 'error')),
  'data.threads': Whole(0, PROCESSES),
  'data.workers': Whole(0, PROCESSES),
  'data.prefetch': Whole(0, PROCESSES),
}


def of_task(task: str) -> dict[str, Rule]:
  """Returns the rules of all fields of a task, by path."""
  return RULES | {'task': Choice(tuple(TASKS))} | TASKS[task].RULES


def check(config: Any) -> None:
  """Raises ValueError of one line for the first field whose value has no meaning.

  Args:
    config: of `default.get_config`, or a part of one.
  """
  task = config.get('task', 'classification')
  rules = of_task(task) if task in TASKS else {'task': Choice(tuple(TASKS))}
  for path, value in paths.leaves(config):
    if path in rules and (problem := rules[path].problem(value)):
      raise ValueError(f'{path} {problem}')


def check_memory(config: Any, processes: int = 1) -> None:
  """Raises ValueError if this process's part of one batch of images is larger than the machine's memory.

  Args:
    config: uses train.batch_size, eval.batch_size and what the task's examples are made by.
    processes: among which a batch is divided.
  """
  size, words = TASKS[config.get('task', 'classification')].example_size(config)
  memory = machine_memory()
  for field, rows in (('train', config.train.batch_size), ('eval', config.eval.batch_size)):
    needed = rows * size // processes
    if memory and needed > memory:
      raise ValueError(
        f'{field}.batch_size is {rows} and {words}: a batch takes {needed / 2**30:,.0f} GiB of each process, '
        f'and this machine has {memory / 2**30:,.0f} GiB'
      )


def machine_memory() -> int:
  """Returns the bytes of memory that this process may use, or 0 if the system does not say."""
  try:
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  except (AttributeError, OSError, ValueError):
    return 0
  limit = pathlib.Path('/sys/fs/cgroup/memory.max')  # of a container
  if limit.is_file() and (text := limit.read_text().strip()).isdigit():
    memory = min(memory, int(text))
  return memory
