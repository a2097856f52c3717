"""Fields of detectors and their tests, a part of those of detection, and their rules."""

import ml_collections

from ctx_flax.configs.kinds import Choice, Flag, Number, Rule, Text, Whole


def add_fields(config: ml_collections.ConfigDict) -> None:
  """Adds to the groups init, model and eval what detectors are made and tested with."""
  # New layers for another label set; the rest of the heads starts from init.weights.
  config.init.reset_classes = False
  _add_model(config.model)
  _add_proposals(config.model)
  _add_detections(config.model)
  # Whose area makes a detected mask small, medium or large; or 'box', as MMDetection 2 has it.
  config.eval.area = 'mask'
  config.eval.results = ''  # folder that a test writes its detections to, in COCO's format; '' = none


def _add_model(model):
  model.name = 'mask_rcnn'  # a name of ctx_flax.models.DETECTORS
  model.backbone = 'ctx_convnext_t'  # a name of ctx_flax.models.MODELS; fields of networks are those of it
  model.num_classes = 80  # that are detected, as the data has; 0 = take the data's
  # Classes that a contextual backbone chooses its contexts from; 0 = as init.weights has, without it 1000.
  model.context_classes = 0
  model.channels = 256  # of the feature pyramid and of the convolutions of all heads
  model.hidden = 1024  # of the linear layers of the box heads
  model.mask_convs = 4  # convolutions of a mask head


def _add_proposals(model):
  model.train_pre_nms = 2000  # best anchors of each map that go into the NMS of the proposals, in training
  model.train_proposals = 1000  # that are left then, of all maps. Cascade R-CNN: 2000
  model.test_pre_nms = 1000  # the same in tests
  model.test_proposals = 1000  # the same in tests
  model.proposal_threshold = 0.7  # IoU from which of two proposals the better one alone is kept
  # Proposals without a larger width and height are dropped; below 0 none are. MMDetection 3: 0.
  model.min_box_size = -1.0
  # By how many pixels an anchor that is trained on may reach out of the image; below 0 any. Cascade R-CNN: 0.
  model.allowed_border = -1


def _add_detections(model):
  model.score_threshold = 0.05  # detections have a higher score
  model.nms_threshold = 0.5  # IoU from which of two detections of a class the better one alone is kept
  model.detections = 100  # of an image, at most
  model.candidates = 4096  # pairs of a proposal and a class that go into that NMS, at most


COUNT = Whole(1, 1_000_000)
FRACTION = Number(0, 1, text='a share, 0 to 1')
RULES: dict[str, Rule] = {
  'init.reset_classes': Flag(),
  'model.backbone': Text(),
  'model.context_classes': Whole(0, 1_000_000),
  'model.channels': Whole(1, 65_536),
  'model.hidden': Whole(1, 65_536),
  'model.mask_convs': Whole(1, 1000),
  'model.train_pre_nms': COUNT,
  'model.train_proposals': COUNT,
  'model.test_pre_nms': COUNT,
  'model.test_proposals': COUNT,
  'model.proposal_threshold': FRACTION,
  'model.min_box_size': Number(float('-inf')),
  'model.allowed_border': Whole(-1, 8192),
  'model.score_threshold': FRACTION,
  'model.nms_threshold': FRACTION,
  'model.detections': COUNT,
  'model.candidates': COUNT,
  'eval.area': Choice(('mask', 'box')),
  'eval.results': Text(),
}
