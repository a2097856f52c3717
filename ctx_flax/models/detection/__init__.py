"""Detectors of objects and their masks, on the networks of ctx_flax.models."""

from ctx_flax.models.detection.cascade_rcnn import CascadeMaskRCNN
from ctx_flax.models.detection.detector import Detections, Detector
from ctx_flax.models.detection.mask_rcnn import MaskRCNN
from ctx_flax.models.detection.proposals import Proposals

__all__ = ['CascadeMaskRCNN', 'Detections', 'Detector', 'MaskRCNN', 'Proposals']
