"""Fields of classification, whose examples are images with one label each, and their rules."""

import ml_collections

from ctx_flax.configs.fields import modes
from ctx_flax.configs.kinds import Choice, Flag, Number, Text, Tuple, Whole


def add_fields(config: ml_collections.ConfigDict) -> None:
  """Adds what only classification reads to the common groups, and the groups of its own."""
  add_classes(config)
  config.eval.crop_ratio = 0.875  # side of the centre crop over the short side; 1 = the largest square
  add_size(config.data)
  _add_sources(config.data)
  add_augmentation(config.data)
  modes.add_fields(config)


def add_classes(config: ml_collections.ConfigDict) -> None:
  """Adds what concerns the classes and the losses of the stages."""
  # New class embeddings, or a new plain head, for another label set; class counts that the weights bring are
  # scaled to its size.
  config.init.reset_classes = False

  config.loss = loss = ml_collections.ConfigDict()
  loss.alpha = 0.15  # weight of the losses of stages 1-3; stage 4 has weight 1
  loss.label_smoothing = 0.0  # part of the target that all considered classes share
  # What a stage's sum is divided by: the images 'counted' in that stage, or all of the 'batch', which spares
  # accumulation under 'reduction' its first forward pass but weighs a stage by the share of images it kept.
  loss.normalise = 'counted'

  # The numbers of considered classes shrink from all to the model's over this fraction of the steps; 0 = off,
  # as in the paper. Evaluation always uses the model's.
  config.train.class_counts_warmup = 0.0


def add_size(data: ml_collections.ConfigDict) -> None:
  """Adds the size of the examples, which are squares."""
  data.image_size = 224  # height and width that the network sees


def example_size(config: ml_collections.ConfigDict) -> tuple[int, str]:
  """(Bytes of an example in a batch, the fields that it follows from, in words.)"""
  side = config.data.image_size
  return config.model.segments * side * side * 3 * 4, f'data.image_size {side}'


def _add_sources(data):
  # image_folder: share of each class to test on, where the classes lie in data.path itself; 0 = they must not
  data.test_share = 0.0
  data.train_list = ''  # image_list: file with a line "name label" per image, names relative to data.path
  data.test_list = ''  # the same of the test images
  data.test_images = 360  # digits and emoji: size of the test part
  data.classes = 100  # glyphs, patches and emoji: how many of their classes
  # glyphs, patches and emoji: training images of each class; glyphs and patches test on a fifth as many
  data.images_per_class = 100
  # emoji: test images in the styles of other designers, 'unseen', or in those of the 'training' images
  data.test_styles = 'unseen'


def add_augmentation(data: ml_collections.ConfigDict) -> None:
  """Adds what is done to the training examples."""
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


PROBABILITY = Number(0, 1, text='a probability, 0 to 1')
AMOUNT = Number(0, text='0 (off) or more')
# The alpha of a Beta distribution; far above, its draws are no different from 0.5.
BETA = Number(0, 1000, text='0 (off) to 1000')
RULES = modes.RULES | {
  'init.reset_classes': Flag(),
  'loss.alpha': Number(0),
  'loss.label_smoothing': Number(0, 1, below=True, text='at least 0 (off) and below 1'),
  'loss.normalise': Choice(('counted', 'batch')),
  'train.class_counts_warmup': Number(0, 1, text='a fraction of the run, 0 to 1'),
  'eval.crop_ratio': Number(0, 1, above=True, text='above 0 and at most 1'),
  'data.image_size': Whole(1, 8192),
  'data.test_styles': Choice(('unseen', 'training')),
  'data.test_share': Number(0, 1, below=True, text='0 (off) or more and below 1'),
  'data.train_list': Text(),
  'data.test_list': Text(),
  'data.test_images': Whole(1),
  'data.classes': Whole(2, 1_000_000),
  # A million images of 32 x 32 in memory for every class is more than the fonts and photographs can make.
  'data.images_per_class': Whole(1, 1_000_000),
  'data.crop_scale': Tuple(
    Number(0, 1, above=True), 'must be (), or (least, largest) share, above 0 and at most 1', (0, 2), True
  ),
  'data.crop_aspect': Tuple(Number(0, above=True), 'must be (least, largest) above 0', (2,), True),
  'data.flip': PROBABILITY,
  'data.rotate': AMOUNT,
  'data.shift': AMOUNT,
  'data.scale': AMOUNT,
  'data.rand_augment.operations': Whole(0, 100, '0 (off) or more, and at most 100'),
  'data.rand_augment.magnitude': Number(0, 10, text='0 to 10'),
  'data.rand_augment.magnitude_std': AMOUNT,
  'data.rand_augment.probability': PROBABILITY,
  'data.erasing': PROBABILITY,
  'data.mixup': BETA,
  'data.cutmix': BETA,
  'data.mix_probability': PROBABILITY,
  'data.mix_switch': PROBABILITY,
}
