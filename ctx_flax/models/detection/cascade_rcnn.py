"""Cascade Mask R-CNN: https://arxiv.org/abs/1906.09756, as ConvNeXt's and Swin's experiments have it.

The box heads are those of their configurations for MMDetection 2.11: four convolutions with BatchNorm, a
linear layer, and boxes for each class. A stage refines the boxes of the one before. In a test the logits of
the classes and the probabilities of the masks are averaged over the stages.
"""

from ctx_flax.models.detection.detector import Detector


class CascadeMaskRCNN(Detector):
  """Three stages, each with a box head and a mask head of its own. See Detector."""

  train_proposals: int = 2000
  allowed_border: int = 0

  box_stds = (0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067)
  box_layers = 4, 1
