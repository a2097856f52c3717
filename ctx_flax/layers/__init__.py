"""Flax Linen layers around the operations."""

from ctx_flax.layers.blocks import Bottleneck, ConvNeXtBlock, DropPath, LayerScale
from ctx_flax.layers.contextual_conv import ContextualConv
from ctx_flax.layers.contextualizer import Contextualizer
from ctx_flax.layers.deform_conv import DeformConv
from ctx_flax.layers.feature_pyramid import FeaturePyramid
from ctx_flax.layers.normalization import BatchNorm, LayerNorm

__all__ = [
  'BatchNorm',
  'Bottleneck',
  'ContextualConv',
  'Contextualizer',
  'ConvNeXtBlock',
  'DeformConv',
  'DropPath',
  'FeaturePyramid',
  'LayerNorm',
  'LayerScale',
]
