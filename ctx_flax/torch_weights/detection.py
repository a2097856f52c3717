"""The names of MMDetection's detectors with ConvNeXt or ResNet as the backbone.

Those of version 2, to which ConvNeXt's own code adds its network; version 3 has the same ones for ResNet, and
for ConvNeXt those of another library.
"""

from collections.abc import Sequence

from ctx_flax.torch_weights.tables import BLOCK, FACEBOOK_TRUNK, RESNET_TRUNK, Source, prefixed

# The backbones keep the names of the networks that they are; their own paths here do not overlap.
_BACKBONES = (
  *FACEBOOK_TRUNK,
  (f'{BLOCK}/dwconv', 'stages.{before}.{i}.dwconv'),
  *RESNET_TRUNK,
  (f'{BLOCK}/conv2', 'layer{s}.{i}.conv2'),
)
_FIRST_STAGE = (
  *((f'backbone/{pattern}', name) for pattern, name in prefixed('backbone', _BACKBONES)),
  (r'output_norm(?P<i>\d)', 'backbone.norm{i}'),
  (r'neck/lateral(?P<i>\d)', 'neck.lateral_convs.{i}.conv'),
  (r'neck/output(?P<i>\d)', 'neck.fpn_convs.{i}.conv'),
  *((f'rpn_head/{part}', f'rpn_head.rpn_{part}') for part in ('conv', 'cls', 'reg')),
)
_BOX_HEAD = (
  (r'conv(?P<i>\d)', 'shared_convs.{i}.conv'),
  (r'bn(?P<i>\d)', 'shared_convs.{i}.bn'),
  (r'fc(?P<i>\d)', 'shared_fcs.{i}'),
  ('cls', 'fc_cls'),
  ('reg', 'fc_reg'),
)
_MASK_HEAD = (
  (r'conv(?P<i>\d)', 'convs.{i}.conv'),
  ('upsample', 'upsample'),
  ('logits', 'conv_logits'),
)


def _heads(stage: str, number: str) -> tuple[tuple[str, str], ...]:
  """The heads of the stages that a regex matches; `number` is what the names there say of the stage."""
  boxes = (
    (f'box_head{stage}/{pattern}', f'roi_head.bbox_head{number}.{name}') for pattern, name in _BOX_HEAD
  )
  masks = (
    (f'mask_head{stage}/{pattern}', f'roi_head.mask_head{number}.{name}') for pattern, name in _MASK_HEAD
  )
  return *boxes, *masks


DETECTORS = (
  Source('mmdet', 'MaskRCNN', r'roi_head\.bbox_head\.fc_cls\..*', (*_FIRST_STAGE, *_heads('0', ''))),
  Source(
    'mmdet',
    'CascadeMaskRCNN',
    r'roi_head\.bbox_head\.\d\..*',
    (*_FIRST_STAGE, *_heads(r'(?P<stage>\d)', '.{stage}')),
  ),
)
REGION = 7  # side of the features of a region in a box head


def reads_regions(path: Sequence[str]) -> bool:
  """Whether an array belongs to the linear layer of a box head that reads the features of a whole region."""
  return path[-2] == 'fc0' and path[-3].startswith('box_head')
