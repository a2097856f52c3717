"""Fields of the classification of clips, and their rules."""

import ml_collections

from ctx_flax.configs.fields import classification, modes
from ctx_flax.configs.kinds import Choice, Number, Tuple, Whole


def add_fields(config: ml_collections.ConfigDict) -> None:
  """Adds what only clips need to the common groups, and the groups of its own."""
  classification.add_classes(config)
  config.model.name = 'ctx_resnet50'
  config.model.segments = 8
  _add_eval(config.eval)
  classification.add_size(config.data)
  _add_sources(config.data)
  _add_frames(config.data)
  classification.add_augmentation(config.data)
  modes.add_fields(config)


def _add_eval(evaluation):
  # Side of the centre crop over the short side, to which frames are resized first.
  evaluation.crop_ratio = 0.875
  # What a test sees of a clip: its 'center'; 'ten_crop', corners and centre with their mirror images; or
  # 'dense', three places in each of ten clips along the video. As many passes, one after the other.
  evaluation.views = 'center'
  # Of several views: the mean of the 'probabilities', or, in plain networks, of the 'scores', as TSM has it.
  evaluation.average = 'probabilities'


def _add_sources(data):
  data.name = 'video_folder'  # a name of ctx_flax.data.clip_sources.CLIP_SOURCES
  data.test_share = (
    0.0  # video_folder: share of each class to test on, where the classes lie in data.path itself
  )
  data.train_list = ''  # video_list, frame_list: a line "name label" or "name frames label" per video
  data.test_list = ''  # the same of the test videos
  data.classes = 40  # moves: 40, or 8 for the motions alone
  data.images_per_class = 32  # moves: training videos of each class; a quarter as many to test


def _add_frames(data):
  # Which frames of a video a clip has: 'uniform', one of each of model.segments equal parts; 'dense', at
  # equal distances within a window; 'twice', uniform, and tested at two sets of places.
  data.sampling = 'uniform'
  data.dense_window = 64  # dense: frames that the window spans
  data.short_side = 256  # frames are resized to this short side before they are cropped; 0 = as stored
  # Multi-scale crop: sides as shares of the short side, width and height at most one apart in this list, at
  # one of 13 places; () = data.crop_scale as for images. Replaces it.
  data.crop_scales = ()


example_size = classification.example_size
RULES = (
  modes.RULES
  | {path: rule for path, rule in classification.RULES.items() if path != 'data.test_images'}
  | {
    'eval.views': Choice(('center', 'ten_crop', 'dense')),
    'eval.average': Choice(('probabilities', 'scores')),
    'data.sampling': Choice(('uniform', 'dense', 'twice')),
    'data.dense_window': Whole(1, 1_000_000),
    'data.short_side': Whole(0, 8192),
    'data.crop_scales': Tuple(Number(0, 1, above=True), 'must be () or hold shares above 0 and at most 1'),
  }
)
