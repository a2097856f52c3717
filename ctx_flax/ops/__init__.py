"""Operations: pure functions of arrays, without parameters and without Flax. NHWC."""

from ctx_flax.ops.bilinear import bilinear_sample
from ctx_flax.ops.contextual_conv import contextual_conv, contextual_depthwise_conv
from ctx_flax.ops.deform_conv import deform_conv
from ctx_flax.ops.depthwise_conv import depthwise_conv
from ctx_flax.ops.temporal_shift import temporal_shift

__all__ = [
  'bilinear_sample',
  'contextual_conv',
  'contextual_depthwise_conv',
  'deform_conv',
  'depthwise_conv',
  'temporal_shift',
]
