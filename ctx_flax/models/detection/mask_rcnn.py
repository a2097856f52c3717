"""Mask R-CNN with a feature pyramid: https://arxiv.org/abs/1703.06870, as MMDetection 2.11 has it."""

from ctx_flax.models.detection.detector import Detector


class MaskRCNN(Detector):
  """One stage: a box head of two linear layers, and a mask head. See Detector."""

  box_stds = ((0.1, 0.1, 0.2, 0.2),)
  box_layers = 0, 2
