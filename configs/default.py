"""Every field of a run once, with its meaning; recipes such as digits.py start from here and set some.

No value is None: 0, '' or () mean "off" or "the default of the model", as the comment says. A field is
overridden on the command line by its path: --config.train.epochs=40 --config.model.class_counts='(8, 6, 4)'.
"""

import difflib

import ml_collections


def get_config(argument: str = '') -> ml_collections.ConfigDict:
  """Returns the default config, locked: a recipe can set its fields but add none. It has no variants."""
  config = ml_collections.ConfigDict()
  config.seed = 0  # fixes initial weights, shuffling, augmentation and stochastic depth
  # Folder of compiled programs, shared by all runs, so that a second start compiles nothing; '' = off. The
  # environment variable JAX_COMPILATION_CACHE_DIR goes before it.
  config.compilation_cache = '~/.cache/ctx_flax'

  config.model = model = ml_collections.ConfigDict()  # keywords of ctx_flax.models.create_model
  # Where a family lacks a field, as ResNet lacks stochastic depth, another value than this one is an error.
  model.name = 'ctx_convnext_t'  # a name of ctx_flax.models.MODELS
  model.num_classes = 1000  # as the data has
  model.depths = ()  # blocks in each of the four stages; () = as the name says
  model.dims = ()  # channels of the four stages; () = as the name says
  model.embed_dim = 256  # size of a class embedding
  model.class_counts = ()  # classes considered in stages 2, 3, 4; () = 500, 200, 50 scaled to num_classes
  # 'reduction' as the paper; 'rerank' as the released code: every stage scores all classes.
  model.class_selection = 'reduction'
  model.contextual_every = 0  # so many blocks from one contextual block to the next; 0 = ConvNeXt 3, ResNet 2
  model.mask_gain = 1.0  # factor on the sigmoid mask; 2.0 starts a contextual convolution as the plain one
  model.branch_dim = 0  # hidden size of the two branches; 0 = from the channels, as the paper
  model.drop_path_rate = 0.0  # stochastic depth of the last block; rises linearly from 0 at the first
  model.drop_path_in_contextual = True  # False spares the contextual blocks
  model.layer_scale_init = 1e-6  # initial gamma of a ConvNeXt block; 0 = no layer scale
  model.stem_stride = 4  # side of ConvNeXt's first patches; the image needs 8 times that
  model.logit_scale_init = 1 / 0.07  # initial exp(tau), the factor on the cosines
  model.remat = False  # recompute blocks in the backward pass: less memory, more time
  model.dtype = 'float32'  # of the computation; positions, scores and losses stay float32
  model.param_dtype = 'float32'  # of the parameters

  config.loss = loss = ml_collections.ConfigDict()
  loss.alpha = 0.15  # weight of the losses of stages 1-3; stage 4 has weight 1
  loss.label_smoothing = 0.0  # part of the target that all considered classes share

  config.optimizer = optimizer = ml_collections.ConfigDict()  # AdamW
  optimizer.learning_rate = 1e-3  # at its highest, for this batch size
  optimizer.weight_decay = 2e-5  # decoupled, times the learning rate; not on biases, norms, embeddings, tau
  optimizer.beta1 = 0.9  # decay of the mean of the gradients
  optimizer.beta2 = 0.999  # decay of the mean of their squares
  optimizer.eps = 1e-8  # added to the root of that mean
  optimizer.clip_norm = 0.0  # largest global norm of the gradients; 0 = no clipping
  optimizer.warmup_epochs = 0.0  # linear warm-up, then the cosine over all steps from that step's value on
  optimizer.warmup_start = 1e-7  # learning rate of the first step when warming up
  optimizer.floor = 1e-7  # learning rate at the end of the cosine

  config.train = train = ml_collections.ConfigDict()
  train.batch_size = 128  # images of a step, over all devices
  train.epochs = 100.0  # passes over the training images
  train.steps = 0  # 0 = from epochs
  train.ema_decay = 0.9999  # of the averaged weights, once a step; 0 = none are kept
  train.log_every = 50  # steps between lines of metrics.jsonl; only then are metrics fetched from the device
  train.eval_every = 0  # steps between evaluations; 0 = at the end only
  train.checkpoint_every = 0  # steps between checkpoints; 0 = at the end only
  train.keep_checkpoints = 2  # the newest so many stay

  config.eval = ml_collections.ConfigDict()
  config.eval.batch_size = 128  # over all devices; the last batch is padded and counted exactly

  config.data = data = ml_collections.ConfigDict()
  data.name = 'digits'  # a name of ctx_flax.data.sources.SOURCES
  data.image_size = 224  # height and width that the network sees
  data.mean = (0.485, 0.456, 0.406)  # of the channels, pixels in 0..1
  data.std = (0.229, 0.224, 0.225)  # of the channels; one value in mean or std serves all three
  data.split_seed = 0  # of the division into training and test images, where the data has none of its own
  data.test_images = 360  # size of the test part, where the data has none of its own
  data.rotate = 0.0  # augmentation: rotation by up to so many degrees either way
  data.shift = 0.0  # augmentation: shift by up to this fraction of the side, either way, in y and in x
  data.scale = 0.0  # augmentation: size times a factor of up to 1 + scale either way
  data.threads = 2  # that prepare batches; the batches do not depend on it. 0 = none but the main one
  return with_variants(config.lock(), argument, {})


def with_variants(config, argument, variants):
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
    if fields is None or isinstance(fields, str) != bool(equals):
      raise ValueError(f'unknown variant {item!r}; known: {known or "none"}{nearest(name, variants)}')
    if isinstance(fields, str):
      fields = {fields: _parse(item, text, type(_get(config, fields)))}
    for path, value in fields.items():
      group, _, field = path.rpartition('.')
      (_get(config, group) if group else config)[field] = value
  return config


def nearest(name, names):
  """Returns '; did you mean ...?' with the most similar of the names, or '' where none is similar."""
  found = difflib.get_close_matches(name, list(names), n=1)
  return f'; did you mean {found[0]!r}?' if found else ''


def _get(config, path):
  for name in path.split('.'):
    config = config[name]
  return config


def _parse(item, text, kind):
  try:
    return kind(text)
  except ValueError:
    raise ValueError(f'variant {item!r}: {text!r} is not of type {kind.__name__}') from None
