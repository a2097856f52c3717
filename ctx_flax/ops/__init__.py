"""Operations: pure functions of arrays, without parameters and without Flax. NHWC."""

from ctx_flax.ops.bilinear import bilinear_sample
from ctx_flax.ops.boxes import box_iou, clip_boxes, decode_boxes, encode_boxes, generalised_box_iou
from ctx_flax.ops.contextual_conv import contextual_conv, contextual_depthwise_conv
from ctx_flax.ops.deform_conv import deform_conv
from ctx_flax.ops.depthwise_conv import depthwise_conv
from ctx_flax.ops.mask_targets import mask_targets
from ctx_flax.ops.nms import MulticlassDetections, multiclass_nms, nms
from ctx_flax.ops.roi_align import box_levels, pyramid_roi_align, roi_align
from ctx_flax.ops.temporal_shift import temporal_shift

__all__ = [
  'MulticlassDetections',
  'bilinear_sample',
  'box_iou',
  'box_levels',
  'clip_boxes',
  'contextual_conv',
  'contextual_depthwise_conv',
  'decode_boxes',
  'deform_conv',
  'depthwise_conv',
  'encode_boxes',
  'generalised_box_iou',
  'mask_targets',
  'multiclass_nms',
  'nms',
  'pyramid_roi_align',
  'roi_align',
  'temporal_shift',
]
