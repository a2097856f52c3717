"""What parameters are called in PyTorch checkpoints: a short table per source, read both ways."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from ctx_flax.torch_weights.detection import DETECTORS, REGION, reads_regions
from ctx_flax.torch_weights.tables import (
  BLOCK,
  CONTEXTUALIZER,
  COUNTER,
  FACEBOOK_TRUNK,
  MMACTION2_RESNET,
  RESNET,
  RESNET_TRUNK,
  TSM_RESNET,
  Source,
  contextual,
  prefixed,
)

__all__ = [
  'BLOCK',
  'COUNTER',
  'SOURCES',
  'Source',
  'find_source',
  'from_torch_layout',
  'recognise',
  'to_torch_layout',
]

# In the order in which files are recognised: the authors' names are those of the plain networks and more.
SOURCES: tuple[Source, ...] = (
  Source(
    'authors',
    'ConvNeXt',
    r'stages\.\d\.\d+\.dwconv\.conv\..*',
    (*FACEBOOK_TRUNK, *contextual('dwconv', 'stages.{before}.{i}.dwconv'), *CONTEXTUALIZER),
  ),
  Source(
    'authors',
    'ResNet',
    r'layer\d\.\d+\.conv2\.conv\..*',
    (*RESNET_TRUNK, *contextual('conv2', 'layer{s}.{i}.conv2'), *CONTEXTUALIZER),
  ),
  Source(
    'facebook',
    'ConvNeXt',
    r'downsample_layers\..*',
    (*FACEBOOK_TRUNK, (f'{BLOCK}/dwconv', 'stages.{before}.{i}.dwconv'), ('norm', 'norm'), ('head', 'head')),
  ),
  Source(
    'timm',
    'ConvNeXt',
    r'stages\.\d\.blocks\..*',
    (
      ('stem_conv', 'stem.0'),
      ('stem_norm', 'stem.1'),
      (r'downsample(?P<s>\d)_norm', 'stages.{before}.downsample.0'),
      (r'downsample(?P<s>\d)_conv', 'stages.{before}.downsample.1'),
      (f'{BLOCK}/dwconv', 'stages.{before}.blocks.{i}.conv_dw'),
      (f'{BLOCK}/norm', 'stages.{before}.blocks.{i}.norm'),
      (f'{BLOCK}/pwconv1', 'stages.{before}.blocks.{i}.mlp.fc1'),
      (f'{BLOCK}/pwconv2', 'stages.{before}.blocks.{i}.mlp.fc2'),
      (f'{BLOCK}/layer_scale', 'stages.{before}.blocks.{i}'),
      ('norm', 'head.norm'),
      ('head', 'head.fc'),
    ),
  ),
  Source(
    'torchvision',
    'ConvNeXt',
    r'features\..*',
    (
      ('stem_conv', 'features.0.0'),
      ('stem_norm', 'features.0.1'),
      (r'downsample(?P<s>\d)_norm', 'features.{even}.0'),
      (r'downsample(?P<s>\d)_conv', 'features.{even}.1'),
      (f'{BLOCK}/dwconv', 'features.{odd}.{i}.block.0'),
      (f'{BLOCK}/norm', 'features.{odd}.{i}.block.2'),
      (f'{BLOCK}/pwconv1', 'features.{odd}.{i}.block.3'),
      (f'{BLOCK}/pwconv2', 'features.{odd}.{i}.block.5'),
      (f'{BLOCK}/layer_scale', 'features.{odd}.{i}'),
      ('norm', 'classifier.0'),
      ('head', 'classifier.2'),
    ),
    leaves={'gamma': 'layer_scale'},
  ),
  Source(
    'tsm',
    'ResNet',
    r'base_model\..*',
    (*prefixed('base_model', TSM_RESNET), ('fc', 'new_fc')),
    prefix='module.',
  ),
  Source(
    'mmaction2',
    'ResNet',
    r'backbone\.layer1\.0\.conv1\.conv\..*',
    (*prefixed('backbone', MMACTION2_RESNET), ('fc', 'cls_head.fc_cls')),
  ),
  *DETECTORS,
  Source('torchvision', 'ResNet', r'layer1\..*', RESNET),
  Source('timm', 'ResNet', r'layer1\..*', RESNET),  # the same names
)


def find_source(name: str, family: str) -> Source:
  """The Source of that name and family.

  Raises:
    ValueError: there is none; the message lists the names that the family has.
  """
  known = {source.name: source for source in SOURCES if source.family == family}
  if name not in known:
    raise ValueError(f'{name!r} names no source of {family} weights; known: {", ".join(sorted(known))}')
  return known[name]


def recognise(names: Iterable[str]) -> Source | None:
  """The Source whose names a file has, or None; timm's ResNet has the names of torchvision's."""
  return next((s for s in SOURCES if any(re.fullmatch(s.marker, name) for name in names)), None)


def to_torch_layout(path: Sequence[str], value: np.ndarray, source: Source) -> np.ndarray:
  """An array here as it lies there; `path` ends in the names of its module and of itself."""
  if path[-1] == 'gamma' and source.leaves.get('gamma') == 'layer_scale':
    return value[:, None, None]
  if path[-1] != 'kernel':
    return value
  if path[-2] == 'upsample':  # a transposed convolution: inputs first there
    return np.transpose(value, (2, 3, 0, 1))
  if reads_regions(path):  # channel by channel there, pixel by pixel here
    value = np.transpose(value.reshape(REGION, REGION, -1, value.shape[-1]), (3, 2, 0, 1))
    return value.reshape(len(value), -1)
  if value.ndim == 4:
    return np.transpose(value, (3, 2, 0, 1))
  # The sampling branch's first layer acts on every pixel: a 1x1 convolution there.
  return value.T[:, :, None, None] if path[-2] == 'sampling_proj' else value.T


def from_torch_layout(path: Sequence[str], value: np.ndarray, source: Source) -> np.ndarray:
  """The reverse of `to_torch_layout`. Arrays that cannot be what the path names come back as they are."""
  if path[-1] == 'gamma' and source.leaves.get('gamma') == 'layer_scale' and value.ndim == 3:
    return value.reshape(-1) if value.shape[1:] == (1, 1) else value
  if path[-1] != 'kernel':
    return value
  if path[-2] == 'upsample' and value.ndim == 4:
    return np.transpose(value, (2, 3, 0, 1))
  if reads_regions(path) and value.ndim == 2 and value.shape[1] % REGION**2 == 0:
    value = np.transpose(value.reshape(len(value), -1, REGION, REGION), (2, 3, 1, 0))
    return value.reshape(-1, value.shape[-1])
  if path[-2] == 'sampling_proj' and value.ndim == 4:
    return value[:, :, 0, 0].T if value.shape[2:] == (1, 1) else value
  return {4: lambda: np.transpose(value, (2, 3, 1, 0)), 2: lambda: value.T}.get(value.ndim, lambda: value)()
