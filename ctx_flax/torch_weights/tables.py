"""The tables of names: for each code base, what a module here is called there.

A table maps the path of a module here to the name of the module there. In the names there {s} is the number
of the stage and {i} that of the block; {before} is s - 1, {even} 2s - 2 and {odd} 2s - 1. What else a pattern
names is put in as it is.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence

BLOCK = r'stage(?P<s>\d)_block(?P<i>\d+)'
# The last part of a name. Where a module here holds several kinds, as BatchNorm does, each has its own.
LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
  'gamma': 'gamma',
  'class_embedding': 'class_token_embedding.weight',
  'logit_scale': 'logit_scale',
}
COUNTER = '.num_batches_tracked'  # of BatchNorm there; nothing reads it with a momentum of its own


@dataclasses.dataclass(frozen=True)
class Source:
  """How a code base names the parameters of a family.

  Attributes:
    name: 'authors', 'facebook', 'timm' or 'torchvision'; of clips 'tsm' or 'mmaction2', of detectors 'mmdet'.
    family: name of its class, 'ConvNeXt' or 'ResNet', or that of a detector.
    marker: regex that a name in every one of its files matches.
    modules: ((regex of a module's path here, name there), ...).
    leaves: where the last part of a name differs from LEAVES.
    prefix: of all names in the files of a code base that trains in parallel; read with or without it.
  """

  name: str
  family: str
  marker: str
  modules: tuple[tuple[str, str], ...]
  leaves: dict[str, str] = dataclasses.field(default_factory=dict)
  prefix: str = ''

  def __str__(self) -> str:
    return (
      f"the authors' contextual {self.family}" if self.name == 'authors' else f"{self.name}'s {self.family}"
    )

  def torch_name(self, path: Sequence[str]) -> str | None:
    """The name there of ('params', 'stage1_block0', 'dwconv', 'kernel'), or None where it has none."""
    module, leaf = '/'.join(path[1:-1]), path[-1]
    for pattern, name in self.modules:
      match = re.fullmatch(pattern, module)
      if match:
        found = match.groupdict()
        s = int(found.get('s') or 0)
        numbers = {**found, 'before': s - 1, 'even': 2 * s - 2, 'odd': 2 * s - 1}
        return f'{name.format(**numbers)}.{self.leaves.get(leaf, LEAVES[leaf])}'
    return None


def contextual(conv: str, name: str) -> tuple[tuple[str, str], ...]:
  """A contextual convolution: the main kernel and the two branches, each linear, norm, ReLU, linear."""
  return (
    (f'{BLOCK}/{conv}', f'{name}.conv'),
    (f'{BLOCK}/{conv}/sampling_proj', f'{name}.spatial_offset_layer.0'),
    (f'{BLOCK}/{conv}/sampling_norm', f'{name}.spatial_offset_layer.1'),
    (f'{BLOCK}/{conv}/sampling_out', f'{name}.spatial_offset_layer.3'),
    (f'{BLOCK}/{conv}/kernel_proj', f'{name}.weight_offset_layer.0'),
    (f'{BLOCK}/{conv}/kernel_norm', f'{name}.weight_offset_layer.1'),
    (f'{BLOCK}/{conv}/kernel_out', f'{name}.weight_offset_layer.3'),
  )


def prefixed(prefix: str, modules: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
  return tuple((pattern, f'{prefix}.{name}') for pattern, name in modules)


CONTEXTUALIZER = (
  ('contextualizer', 'cls'),
  (r'contextualizer/head(?P<s>\d)/proj', 'cls.visual_proj_heads.{before}.nonlinear.0'),
  (r'contextualizer/head(?P<s>\d)/norm', 'cls.visual_proj_heads.{before}.nonlinear.1'),
  (r'contextualizer/head(?P<s>\d)/out', 'cls.visual_proj_heads.{before}.nonlinear.3'),
  (r'contextualizer/merger(?P<s>\d)/inner', 'cls.class_mergers.{before}.in_nonlinear.0'),
  (r'contextualizer/merger(?P<s>\d)/inner_norm', 'cls.class_mergers.{before}.in_nonlinear.1'),
  (r'contextualizer/merger(?P<s>\d)/outer', 'cls.class_mergers.{before}.out_nonlinear.0'),
  (r'contextualizer/merger(?P<s>\d)/outer_norm', 'cls.class_mergers.{before}.out_nonlinear.1'),
)
FACEBOOK_TRUNK = (
  ('stem_conv', 'downsample_layers.0.0'),
  ('stem_norm', 'downsample_layers.0.1'),
  (r'downsample(?P<s>\d)_norm', 'downsample_layers.{before}.0'),
  (r'downsample(?P<s>\d)_conv', 'downsample_layers.{before}.1'),
  (f'{BLOCK}/norm', 'stages.{before}.{i}.norm'),
  (f'{BLOCK}/pwconv1', 'stages.{before}.{i}.pwconv1'),
  (f'{BLOCK}/pwconv2', 'stages.{before}.{i}.pwconv2'),
  (f'{BLOCK}/layer_scale', 'stages.{before}.{i}'),
)
RESNET_TRUNK = (
  ('conv1', 'conv1'),
  ('bn1', 'bn1'),
  *((f'{BLOCK}/{part}', f'layer{{s}}.{{i}}.{part}') for part in ('conv1', 'bn1', 'bn2', 'conv3', 'bn3')),
  (f'{BLOCK}/downsample_conv', 'layer{s}.{i}.downsample.0'),
  (f'{BLOCK}/downsample_bn', 'layer{s}.{i}.downsample.1'),
)
# TSM wraps a convolution in a module that shifts in front of it, here the first one of a block.
SHIFTED = (f'{BLOCK}/conv1', 'layer{s}.{i}.conv1.net')
TSM_RESNET = (SHIFTED, *RESNET_TRUNK, (f'{BLOCK}/conv2', 'layer{s}.{i}.conv2'))
MMACTION2_RESNET = (
  ('conv1', 'conv1.conv'),
  ('bn1', 'conv1.bn'),
  (f'{BLOCK}/conv1', 'layer{s}.{i}.conv1.conv.net'),
  *((f'{BLOCK}/conv{n}', f'layer{{s}}.{{i}}.conv{n}.conv') for n in (2, 3)),
  *((f'{BLOCK}/bn{n}', f'layer{{s}}.{{i}}.conv{n}.bn') for n in (1, 2, 3)),
  (f'{BLOCK}/downsample_conv', 'layer{s}.{i}.downsample.conv'),
  (f'{BLOCK}/downsample_bn', 'layer{s}.{i}.downsample.bn'),
)
RESNET = (*RESNET_TRUNK, (f'{BLOCK}/conv2', 'layer{s}.{i}.conv2'), ('fc', 'fc'))
