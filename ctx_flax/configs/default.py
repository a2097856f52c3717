"""The fields of a run, each once with its meaning; recipes such as digits.py start from here and set some.

Here are those of every task; ctx_flax/configs/fields adds those of one task and of the modes, and rules.py
says which values they may have. No value is None: 0, '' or () mean "off" or "the default of the model", as
the comment says. A field is overridden on the command line by its path: --config.train.epochs=40
--config.model.class_counts='(8, 6, 4)'.
"""

from typing import Any

import ml_collections

from ctx_flax.configs import paths
from ctx_flax.configs.fields import TASKS
from ctx_flax.nearest import nearest


def get_config(argument: str = '', *, task: str = 'classification') -> ml_collections.ConfigDict:
  """Returns the default config of a task, locked: a recipe can set its fields but add none.

  Args:
    argument: '', as it has no variants.
    task: a name of ctx_flax.configs.fields.TASKS; the config has only the groups of that task.

  Raises:
    ValueError: an unknown task (with the nearest known one) or variant.
  """
  if task not in TASKS:
    raise ValueError(f'unknown task {task!r}{nearest(task, TASKS)}; known: {", ".join(TASKS)}')
  config = ml_collections.ConfigDict()
  config.task = task  # what is learned
  config.seed = 0  # fixes initial weights, shuffling, augmentation and stochastic depth
  # Folder of compiled programs, shared by all runs, so that a second start compiles nothing; '' = off. The
  # environment variable JAX_COMPILATION_CACHE_DIR goes before it.
  config.compilation_cache = '~/.cache/ctx_flax'
  # Trace steps 10 to 20 of each start into WORKDIR/profile, for TensorBoard and Perfetto.
  config.profile = False
  for add_group in (_add_model, _add_init, _add_optimizer, _add_train, _add_eval, _add_data, _add_check):
    add_group(config)
  TASKS[task].add_fields(config)
  return with_variants(config.lock(), argument, {})


def _add_model(config):
  config.model = model = ml_collections.ConfigDict()  # keywords of ctx_flax.models.create_model
  # Where a family lacks a field, as ResNet lacks stochastic depth, another value than this one is an error.
  model.name = 'ctx_convnext_t'  # a name of ctx_flax.models.MODELS
  model.num_classes = 1000  # as the data has; 0 = take the data's
  model.depths = ()  # blocks in each of the four stages; () = as the name says
  model.dims = ()  # channels of the four stages; () = as the name says
  model.embed_dim = 256  # size of a class embedding
  model.class_counts = ()  # classes considered in stages 2, 3, 4; () = 500, 200, 50 scaled to num_classes
  # 'reduction' as the paper; 'rerank' as the released code: every stage scores all classes.
  model.class_selection = 'reduction'
  model.contextual_every = 0  # so many blocks from one contextual block to the next; 0 = ConvNeXt 3, ResNet 2
  model.mask_gain = 1.0  # factor on the sigmoid mask; 2.0 starts a contextual convolution as the plain one
  # What contextual convolutions leave out, of 'offsets', 'mask', 'kernel_delta' and 'context': ablations, not
  # the paper's. Without the first three they are plain convolutions, but class embeddings still classify.
  model.ablate = ()
  model.branch_dim = 0  # hidden size of the two branches; 0 = from the channels, as the paper
  model.drop_path_rate = 0.0  # stochastic depth of the last block; rises linearly from 0 at the first
  model.drop_path_in_contextual = True  # False spares the contextual blocks
  model.layer_scale_init = 1e-6  # initial gamma of a ConvNeXt block; 0 = no layer scale
  # Side of ConvNeXt's first patches; the image needs 8 times that. ResNet: 4, or 2 for small images.
  model.stem_stride = 4
  model.branch_scale_init = 0.0  # initial scale of the last norm of a ResNet block; 0 = the identity at first
  model.logit_scale_init = 1 / 0.07  # initial exp(tau), the factor on the cosines
  # Ours: contexts are the mean over the considered classes less the mean over all classes; False as the paper
  model.merge_contrast = False
  model.segments = 1  # frames of a clip, in networks of clips (ResNet); 1 = images
  model.temporal_shift = True  # frames of a clip exchange channels; nothing to exchange with one segment
  model.context = 'clip'  # what classes a clip considers: one set for all its frames, or each 'frame' its own
  model.dropout = 0.0  # share of the pooled features that is dropped in front of the last head (ResNet)
  # How ConvNeXt computes plain depthwise convolutions: 'shift' as sums of shifted images, 'xla' by XLA's
  # convolution, 'mixed' by both; '' = by platform. The numbers are the same up to rounding.
  model.depthwise_path = ''
  model.remat = False  # recompute blocks in the backward pass: less memory, more time
  model.dtype = 'float32'  # of the computation; positions, scores and losses stay float32
  model.param_dtype = 'float32'  # of the parameters


def _add_init(config):
  config.init = init = ml_collections.ConfigDict()  # where a run starts; '' and () = from random values
  # The folder of a run (its newest checkpoint; RUN/checkpoints/STEP for another), a .safetensors file of
  # ctx_flax.torch_weights or --mode=export, or PyTorch weights (.pth where PyTorch is installed).
  init.weights = ''
  # What these need not have, or may have in another shape: 'contextual', 'head' or regexes of parameters such
  # as 'stage4_block2/.*'. It starts anew.
  init.allow_missing = ()
  init.freeze = ()  # regexes of parameters that stay as they are; each must match one
  init.freeze_norm = False  # BatchNorm normalises with the statistics of the weights and keeps them
  init.pretrained_rate = 1.0  # factor on the learning rate of what init.weights gave; what is new has 1


def _add_optimizer(config):
  config.optimizer = optimizer = ml_collections.ConfigDict()
  # 'adamw', or 'sgd' as PyTorch's, which adds the weight decay to the gradient, before the momentum.
  optimizer.name = 'adamw'
  optimizer.learning_rate = 1e-3  # at its highest, for batches of reference_batch images
  optimizer.reference_batch = 0  # the rate is multiplied by train.batch_size / this; 0 = taken as it stands
  optimizer.weight_decay = 2e-5  # times the learning rate; adamw: decoupled, sgd: through the momentum
  # Parameters without weight decay: 'standard' = biases, norms, layer scales, class embeddings and tau;
  # anything else is a regex of whole names that must match one. () = all have it.
  optimizer.no_decay = ('standard',)
  optimizer.beta1 = 0.9  # adamw: decay of the mean of the gradients
  optimizer.beta2 = 0.999  # adamw: decay of the mean of their squares
  optimizer.eps = 1e-8  # adamw: added to the root of that mean
  optimizer.momentum = 0.9  # sgd: factor on the sum of the earlier gradients; 0 = none
  optimizer.nesterov = False  # sgd: look ahead by another step of the momentum
  optimizer.clip_norm = 0.0  # largest global norm of the gradients, before any decay; 0 = no clipping
  # After the warm-up: 'cosine' over all steps of the run, counted from step 0; 'steps', the full rate with
  # drops; or 'constant'.
  optimizer.schedule = 'cosine'
  optimizer.drops = ()  # steps: epochs after which the rate falls, such as (20, 40)
  optimizer.drop_factor = 0.1  # steps: what the rate is multiplied by at each of them
  optimizer.floor = 1e-7  # cosine: learning rate at its end
  optimizer.cooldown_epochs = 0.0  # cosine: so many more at the floor, beside train.epochs
  optimizer.per_epoch = False  # cosine, warmup_epochs: the rate of an epoch's first step serves all of it
  optimizer.warmup_epochs = 0.0  # length of the linear warm-up
  optimizer.warmup_steps = 0  # the same in steps; 0 = from warmup_epochs. Setting both is an error
  optimizer.warmup_start = 1e-7  # learning rate of the first step when warming up
  optimizer.warmup_factor = 0.0  # instead, as a fraction of the full rate, such as 0.001; 0 = warmup_start
  # (regex, factor on the learning rate, factor on the weight decay), ... for parameters named as in
  # 'stage2_block0/dwconv/kernel'; each must match exactly one regex wholly. () = one group of all.
  optimizer.groups = ()
  # The rate falls by this factor with every layer from the heads to the stem; 1 = off. What a layer is, the
  # network says: ctx_flax/models/layer_ids.py.
  optimizer.layer_decay = 1.0


def _add_train(config):
  config.train = train = ml_collections.ConfigDict()
  train.batch_size = 128  # images of a step, over all devices
  train.accumulation = 1  # so many parts of a device's batch, one after the other: less memory, same gradient
  train.epochs = 100.0  # passes over the training images
  train.steps = 0  # 0 = from epochs
  train.ema_decay = 0.9999  # of the averaged weights, once a step; 0 = none are kept
  train.on_nan = 'stop'  # at a loss or gradient that is not finite; 'skip' leaves that step out and counts it
  train.deterministic = False  # same bits on every GPU run, slower; a CPU needs no switch
  train.log_every = 50  # steps between lines of metrics.jsonl; only then are metrics fetched from the device
  train.eval_every = 0  # steps between evaluations; 0 = at the end only
  train.checkpoint_every = 0  # steps between checkpoints; 0 = at the end only
  train.checkpoint_minutes = 0.0  # minutes after which another one is due, besides; 0 = off
  train.keep_checkpoints = 2  # the newest so many stay
  train.keep_best = True  # and the best: highest test accuracy, or mask AP (of the EMA where it is on)


def _add_eval(config):
  config.eval = ml_collections.ConfigDict()
  config.eval.batch_size = 128  # over all devices; the last batch is padded and counted exactly
  config.eval.checkpoint = 'latest'  # for --mode=evaluate: 'latest', 'best' or the number of a step
  config.eval.weights = 'all'  # 'raw', 'EMA' or 'all' that the checkpoint holds


def _add_data(config):
  config.data = data = ml_collections.ConfigDict()
  data.name = 'digits'  # a name of ctx_flax.data.sources.SOURCES, or tfds:BUILDER such as tfds:imagenet2012
  data.path = ''  # folder of the images, or tfds's data_dir ('' = ~/tensorflow_datasets)
  data.train_split = 'train'  # tfds split, or folder below data.path, to train on
  data.test_split = ''  # the same to test on; '' = the first there is of validation, val, test
  data.mean = (0.485, 0.456, 0.406)  # of the channels, pixels in 0..1
  data.std = (0.229, 0.224, 0.225)  # of the channels; one value in mean or std serves all three
  data.split_seed = 0  # of the division into training and test images, or of the images made here
  # Unreadable: 'skip' takes the next one, and in tests leaves it out, or as the task says; or 'error'.
  data.on_bad_image = 'skip'
  # How batches are made: they depend on none of these.
  data.threads = 2  # that prepare batches, in every worker process; 0 = none but the main one
  data.workers = 0  # processes that prepare batches; 0 = the main one does
  data.prefetch = 2  # batches that wait on the device


def _add_check(config):
  config.check = ml_collections.ConfigDict()
  config.check.compile = False  # --mode=check: compile the step too, for the compiler's own count of memory


def with_variants(config: Any, argument: str, variants: dict[str, Any]) -> Any:
  """Applies `argument` ('plain,wd=0.05') to the config by a recipe's table of variants; returns the config.

  Args:
    config: what get_config returned, with the recipe's fields set.
    argument: names and name=value pairs between commas; '' changes nothing.
    variants: {name: {path: value, ...}} for a plain name, which sets these fields;
      {name: path} for name=value, which sets the one field, by the type it has.

  Raises:
    ValueError: a name that the table lacks (it lists the known ones), or a value of the wrong type.
  """
  known = ', '.join(f'{name}=VALUE' if isinstance(fields, str) else name for name, fields in variants.items())
  for item in filter(None, argument.split(',')):
    name, equals, text = item.partition('=')
    fields = variants.get(name)
    if isinstance(fields, str) and not equals:
      raise ValueError(f'variant {item!r} needs a value: {item}=VALUE')
    if fields is None or isinstance(fields, str) != bool(equals):
      raise ValueError(f'unknown variant {item!r}; known: {known or "none"}{nearest(name, variants)}')
    if isinstance(fields, str):
      fields = {fields: _parse(item, text, type(paths.get(config, fields)))}
    for path, value in fields.items():
      paths.put(config, path, value)
  return config


def _parse(item, text, kind):
  try:
    return kind(text)
  except ValueError:
    raise ValueError(f'variant {item!r}: {text!r} is not of type {kind.__name__}') from None
