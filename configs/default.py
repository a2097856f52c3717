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

  # Trace steps 10 to 20 of each start into WORKDIR/profile, for TensorBoard and Perfetto.
  config.profile = False

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
  model.branch_dim = 0  # hidden size of the two branches; 0 = from the channels, as the paper
  model.drop_path_rate = 0.0  # stochastic depth of the last block; rises linearly from 0 at the first
  model.drop_path_in_contextual = True  # False spares the contextual blocks
  model.layer_scale_init = 1e-6  # initial gamma of a ConvNeXt block; 0 = no layer scale
  model.stem_stride = 4  # side of ConvNeXt's first patches; the image needs 8 times that
  model.logit_scale_init = 1 / 0.07  # initial exp(tau), the factor on the cosines
  model.remat = False  # recompute blocks in the backward pass: less memory, more time
  model.dtype = 'float32'  # of the computation; positions, scores and losses stay float32
  model.param_dtype = 'float32'  # of the parameters

  config.init = init = ml_collections.ConfigDict()  # where a run starts; '' and () = from random values
  # The folder of a run (its newest checkpoint; RUN/checkpoints/STEP for another), a .safetensors file of
  # ctx_flax.torch_weights or --mode=export, or PyTorch weights (.pth where PyTorch is installed).
  init.weights = ''
  # What these need not have, or may have in another shape: 'contextual', 'head' or regexes of parameters such
  # as 'stage4_block2/.*'. It starts anew.
  init.allow_missing = ()
  # New class embeddings, or a new plain head, for another label set; class counts that the weights bring are
  # scaled to its size.
  init.reset_classes = False
  init.freeze = ()  # regexes of parameters that stay as they are; each must match one
  init.freeze_norm = False  # BatchNorm normalises with the statistics of the weights and keeps them
  init.pretrained_rate = 1.0  # factor on the learning rate of what init.weights gave; what is new has 1

  config.loss = loss = ml_collections.ConfigDict()
  loss.alpha = 0.15  # weight of the losses of stages 1-3; stage 4 has weight 1
  loss.label_smoothing = 0.0  # part of the target that all considered classes share
  # What a stage's sum is divided by: the images 'counted' in that stage, or all of the 'batch', which spares
  # accumulation under 'reduction' its first forward pass but weighs a stage by the share of images it kept.
  loss.normalise = 'counted'

  config.optimizer = optimizer = ml_collections.ConfigDict()  # AdamW
  optimizer.learning_rate = 1e-3  # at its highest, for batches of reference_batch images
  optimizer.reference_batch = 0  # the rate is multiplied by train.batch_size / this; 0 = taken as it stands
  optimizer.weight_decay = 2e-5  # decoupled, times the learning rate; not on biases, norms, embeddings, tau
  optimizer.beta1 = 0.9  # decay of the mean of the gradients
  optimizer.beta2 = 0.999  # decay of the mean of their squares
  optimizer.eps = 1e-8  # added to the root of that mean
  optimizer.clip_norm = 0.0  # largest global norm of the gradients; 0 = no clipping
  optimizer.warmup_epochs = 0.0  # linear warm-up, then the cosine over all steps from that step's value on
  optimizer.warmup_start = 1e-7  # learning rate of the first step when warming up
  optimizer.floor = 1e-7  # learning rate at the end of the cosine
  optimizer.cooldown_epochs = 0.0  # so many more at the floor, after the cosine and beside train.epochs
  optimizer.per_epoch = False  # True: the rate of an epoch's first step serves all of it
  # (regex, factor on the learning rate, factor on the weight decay), ... for parameters named as in
  # 'stage2_block0/dwconv/kernel'; each must match exactly one regex wholly. () = one group of all.
  optimizer.groups = ()

  config.train = train = ml_collections.ConfigDict()
  train.batch_size = 128  # images of a step, over all devices
  train.accumulation = 1  # so many parts of a device's batch, one after the other: less memory, same gradient
  train.epochs = 100.0  # passes over the training images
  train.steps = 0  # 0 = from epochs
  train.ema_decay = 0.9999  # of the averaged weights, once a step; 0 = none are kept
  # The numbers of considered classes shrink from all to the model's over this fraction of the steps; 0 = off,
  # as in the paper. Evaluation always uses the model's.
  train.class_counts_warmup = 0.0
  train.on_nan = 'stop'  # at a loss or gradient that is not finite; 'skip' leaves that step out and counts it
  train.deterministic = False  # same bits on every GPU run, slower; a CPU needs no switch
  train.log_every = 50  # steps between lines of metrics.jsonl; only then are metrics fetched from the device
  train.eval_every = 0  # steps between evaluations; 0 = at the end only
  train.checkpoint_every = 0  # steps between checkpoints; 0 = at the end only
  train.checkpoint_minutes = 0.0  # minutes after which another one is due, besides; 0 = off
  train.keep_checkpoints = 2  # the newest so many stay
  train.keep_best = True  # and the one of the highest test accuracy (of the EMA where it is on)

  config.eval = ml_collections.ConfigDict()
  config.eval.batch_size = 128  # over all devices; the last batch is padded and counted exactly
  config.eval.crop_ratio = 0.875  # side of the centre crop over the short side; 1 = the largest square
  config.eval.checkpoint = 'latest'  # for --mode=evaluate: 'latest', 'best' or the number of a step
  config.eval.weights = 'all'  # 'raw', 'EMA' or 'all' that the checkpoint holds

  config.probe = probe = ml_collections.ConfigDict()  # --mode=linear_probe
  probe.weights = ''  # of the contextual network, as init.weights
  probe.plain_weights = ''  # of the plain one; either may be '' = left out
  probe.plain_model = 'resnet50'  # its name, where PyTorch weights do not tell it
  probe.iterations = 3000  # optimizer steps of a head
  probe.batch_size = 512  # features of a step
  probe.learning_rate = 1e-3  # of AdamW, constant
  probe.weight_decay = 1e-5  # decoupled, times the learning rate
  probe.seeds = 3  # so many heads are trained, seed, seed + 1, ...; the report has mean and deviation
  probe.cache = '~/.cache/ctx_flax/features'  # folder of extracted features, by weights, images and transform

  config.recall = recall = ml_collections.ConfigDict()  # --mode=recall_curves
  recall.target = 0.99  # relative recall of the true class that the class counts must reach
  recall.relative_to = 'all'  # or 'kept' (before the stage): which counts the table by class is made with

  config.sweep = sweep = ml_collections.ConfigDict()  # --mode=alpha_sweep
  sweep.field = 'loss.alpha'  # the field of this config that takes other values
  sweep.over = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)  # these, a run each
  sweep.seeds = 1  # runs of every value, with seed, seed + 1, ...

  config.predict = predict = ml_collections.ConfigDict()  # --mode=predict
  predict.images = ''  # files, folders and globs, separated by commas
  predict.list = ''  # file with a file name in each line, or separated by NUL bytes
  predict.top = 5  # classes shown of every stage
  predict.format = 'table'  # or 'jsonl', 'csv'
  predict.output = ''  # file that is written; '' = standard output

  config.grad_cam = grad_cam = ml_collections.ConfigDict()  # --mode=grad_cam
  grad_cam.images = ''  # as predict.images; '' = test images
  grad_cam.indices = (0, 1, 2, 3)  # which of the test images, by number
  grad_cam.classes = ()  # names of the classes that are explained; () = the true one and its strongest rival
  grad_cam.stage = 0  # whose features are weighted, 1 to 4; 0 = the last with a map of at least 4 x 4
  grad_cam.method = 'grad_cam'  # or 'hirescam', 'grad_cam++'
  grad_cam.plain = ''  # folder of a second run, shown beside this one
  grad_cam.steps = 24  # equal parts of the pixels in deletion and insertion; 0 = no curves

  config.failures = failures = ml_collections.ConfigDict()  # --mode=failures
  failures.images = 24  # most confident mistakes in the gallery and the table
  failures.pairs = 15  # most frequent confusions
  failures.bins = 15  # of the reliability diagram

  config.offsets = offsets = ml_collections.ConfigDict()  # --mode=offsets
  offsets.images = ''  # as predict.images; '' = test images
  offsets.indices = (0, 1, 2, 3)  # which of the test images, by number
  offsets.block = ''  # contextual block, 'stage.block' such as '3.0'; '' = the last with 4 x 4 positions
  offsets.position = ()  # (y, x) of the kernel, as fractions of the image's sides; () = the centre
  offsets.sample = 500  # test images in the maps of contexts and kernel deltas

  config.report = report = ml_collections.ConfigDict()  # --mode=report
  report.beside = ''  # folder of a second run, compared with this one
  report.images = 4  # test images that are explained

  config.check = ml_collections.ConfigDict()
  config.check.compile = False  # --mode=check: compile the step too, for the compiler's own count of memory

  config.data = data = ml_collections.ConfigDict()
  data.name = 'digits'  # a name of ctx_flax.data.sources.SOURCES, or tfds:BUILDER such as tfds:imagenet2012
  data.path = ''  # folder of the images, or tfds's data_dir ('' = ~/tensorflow_datasets)
  data.train_split = 'train'  # tfds split, or folder below data.path, to train on
  data.test_split = ''  # the same to test on; '' = the first there is of validation, val, test
  # image_folder: share of each class to test on, where the classes lie in data.path itself; 0 = they must not
  data.test_share = 0.0
  data.train_list = ''  # image_list: file with a line "name label" per image, names relative to data.path
  data.test_list = ''  # the same of the test images
  data.image_size = 224  # height and width that the network sees
  data.mean = (0.485, 0.456, 0.406)  # of the channels, pixels in 0..1
  data.std = (0.229, 0.224, 0.225)  # of the channels; one value in mean or std serves all three
  data.split_seed = 0  # of the division into training and test images, or of the images made here
  data.test_images = 360  # digits: size of the test part
  data.classes = 100  # glyphs and patches: how many of their classes
  data.images_per_class = 100  # glyphs and patches: training images of each class; a fifth as many to test
  data.on_bad_image = 'skip'  # unreadable: 'skip' takes the next one (leaves it out of tests); or 'error'
  # Augmentation of the training images, in this order.
  data.crop_scale = ()  # random resized crop: least and largest share of the area; () = the whole image
  data.crop_aspect = (3 / 4, 4 / 3)  # least and largest width / height of the crop
  data.flip = 0.0  # probability of a horizontal flip
  data.rotate = 0.0  # rotation by up to so many degrees either way
  data.shift = 0.0  # shift by up to this fraction of the side, either way, in y and in x
  data.scale = 0.0  # size times a factor of up to 1 + scale either way
  data.rand_augment = rand_augment = ml_collections.ConfigDict()
  rand_augment.operations = 0  # drawn for every image; 0 = off
  rand_augment.magnitude = 9.0  # their strength, 0 to 10
  rand_augment.magnitude_std = 0.5  # standard deviation of the strength
  rand_augment.probability = 0.5  # with which each drawn operation is applied
  data.erasing = 0.0  # probability of replacing a rectangle by noise, after normalising
  data.mixup = 0.0  # alpha of the Beta distribution of the shares of two mixed images; 0 = off
  data.cutmix = 0.0  # the same for a rectangle of one image in another; 0 = off
  data.mix_probability = 1.0  # of mixing a batch at all
  data.mix_switch = 0.5  # probability of cutmix rather than mixup for a batch, where both are on
  # How batches are made: they depend on none of these.
  data.threads = 2  # that prepare batches, in every worker process; 0 = none but the main one
  data.workers = 0  # processes that prepare batches; 0 = the main one does
  data.prefetch = 2  # batches that wait on the device
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
    if isinstance(fields, str) and not equals:
      raise ValueError(f'variant {item!r} needs a value: {item}=VALUE')
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
