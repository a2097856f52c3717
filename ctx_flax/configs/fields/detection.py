"""Fields of instance segmentation, whose examples are images with boxes and masks, and their rules."""

import ml_collections

from ctx_flax.configs.fields import detector, detector_modes, detector_training
from ctx_flax.configs.kinds import Number, Rule, Text, Tuple, Whole


def add_fields(config: ml_collections.ConfigDict) -> None:
  """Adds what only instance segmentation reads to the common groups."""
  # Length of the short side of a test image, unless the long one would exceed data.long_side.
  config.eval.short_side = 800
  _add_sources(config.data)
  _add_augmentation(config.data)
  _add_canvases(config.data)
  detector.add_fields(config)
  detector_training.add_fields(config)
  detector_modes.add_fields(config)


def example_size(config: ml_collections.ConfigDict) -> tuple[int, str]:
  """(Bytes of an example in a batch at most, the fields that it follows from, in words.)"""
  data = config.data
  pixels, (short, long) = max(
    ((short * long, (short, long)) for short, long in data.canvases), default=(0, (0, 0))
  )
  size = pixels * 3 + data.max_objects * pixels // 8
  return size, f'the largest of data.canvases {short} x {long}, with data.max_objects={data.max_objects}'


def _add_sources(data):
  data.name = 'coco'  # a name of ctx_flax.data.detection_sources.DETECTION_SOURCES
  # The folder below data.path with the images; annotations/instances_SPLIT.json has their objects.
  data.train_split = 'train2017'
  data.test_split = 'val2017'  # the same to test on; test-dev2017 needs no objects
  data.train_annotations = ''  # coco: another annotation file, in data.path or anywhere; '' = as said
  data.test_annotations = ''  # the same of the test images
  data.train_images = 500  # coco_tiny: images to train on
  data.test_images = 100  # coco_tiny: images to test on


def _add_augmentation(data):
  data.flip = 0.5  # probability of a horizontal flip
  # Lengths of the short side, to one of which half of the training images are resized. The others are resized
  # to one of crop_scales, and a crop of them, perhaps without objects, to one of these.
  data.scales = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
  data.long_side = 1333  # the long side gets no longer, whatever the scale; in tests, too
  data.crop_probability = 0.5  # 0 = no crops
  data.crop_scales = (400, 500, 600)  # before a crop
  data.crop_sides = (384, 600)  # least and largest height and width of a crop, unless the image is smaller


def _add_canvases(data):
  # (short, long) sides of the arrays that images are padded to, lying and standing: multiples of 32. All
  # images of a batch have the same. Each is a program to compile; fewer are more padding to compute.
  data.canvases = ((640, 864), (640, 1088), (800, 1088), (800, 1344))
  data.max_objects = 100  # objects of an image that are trained on; 93 are the most in COCO


SIDE = 8192
SIDES = Tuple(Whole(1, SIDE), f'must hold lengths, 1 to {SIDE}')
PROBABILITY = Number(0, 1, text='a probability, 0 to 1')
RULES: dict[str, Rule] = (
  detector.RULES
  | detector_training.RULES
  | detector_modes.RULES
  | {
    'eval.short_side': Whole(1, SIDE),
    'data.train_annotations': Text(),
    'data.test_annotations': Text(),
    'data.train_images': Whole(1, 1_000_000),
    'data.test_images': Whole(1, 1_000_000),
    'data.flip': PROBABILITY,
    'data.scales': SIDES,
    'data.long_side': Whole(1, SIDE),
    'data.crop_probability': PROBABILITY,
    'data.crop_scales': SIDES,
    'data.crop_sides': Tuple(Whole(1, SIDE), 'must be (least, largest) side', (2,), True),
    'data.canvases': Tuple(
      Tuple((Whole(32, SIDE), Whole(32, SIDE))), f'must hold (short, long) sides, 32 to {SIDE}'
    ),
    'data.max_objects': Whole(1, 1000),
  }
)
