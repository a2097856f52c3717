"""What a detector's training is made with: from config to numbers, checked."""

import dataclasses
from typing import Any

from ctx_flax.tasks.detection.assignment import Thresholds

BOX_LOSSES = 'l1', 'giou'


@dataclasses.dataclass(frozen=True)
class Draw:
  """How many boxes of an image take part: `size` in all, at most `positives` of them of objects."""

  size: int
  positives: int


@dataclasses.dataclass(frozen=True)
class Settings:
  """The training of a detector; the defaults are those of Mask R-CNN in MMDetection 2.11.

  Attributes:
    anchors: when an anchor is an object.
    anchor_draw: anchors of an image that take part.
    anchor_beta: of the SmoothL1 loss on the anchors' deltas; 0 is L1.
    regions: when a region is an object, for every stage of the box heads.
    region_draw: regions of an image that take part, in every stage. The mask head sees the positives.
    box_loss: 'l1' on the deltas, or 'giou' on the decoded boxes.
    box_weight: of the box loss, beside that of its stage.
    stage_weights: of the losses of every stage.
  """

  anchors: Thresholds = Thresholds(0.7, 0.3, 0.3)
  anchor_draw: Draw = Draw(256, 128)
  anchor_beta: float = 0.0
  regions: tuple[Thresholds, ...] = (Thresholds(0.5, 0.5, 0.5),)
  region_draw: Draw = Draw(512, 128)
  box_loss: str = 'l1'
  box_weight: float = 1.0
  stage_weights: tuple[float, ...] = (1.0,)

  @property
  def loss_weights(self) -> dict[str, float]:
    """{'rpn_class': 1, 'rpn_box': 1, 'class0': weight, 'box0': ..., 'mask0': ..., 'class1': ...}."""
    weights = {'rpn_class': 1.0, 'rpn_box': 1.0}
    for stage, weight in enumerate(self.stage_weights):
      weights |= {f'class{stage}': weight, f'box{stage}': weight * self.box_weight, f'mask{stage}': weight}
    return weights


def settings_of(config: Any) -> Settings:
  """The Settings that config.assignment, config.sampling and config.loss make.

  Raises:
    ValueError: a field without meaning, or fields that contradict each other.
  """
  assignment, sampling, loss = config.assignment, config.sampling, config.loss
  if loss.box not in BOX_LOSSES:
    raise ValueError(f'loss.box is {loss.box!r}: expected one of {BOX_LOSSES}')
  if len(loss.stage_weights) != len(assignment.region_iou):
    raise ValueError(
      f'loss.stage_weights={tuple(loss.stage_weights)} and assignment.region_iou='
      f'{tuple(assignment.region_iou)} must both hold a number for every stage of the box heads'
    )
  negative, positive = assignment.anchor_iou
  return Settings(
    anchors=Thresholds(positive, negative, assignment.anchor_best),
    anchor_draw=_draw('anchor', sampling.anchors, sampling.anchor_positives),
    anchor_beta=loss.anchor_beta,
    regions=tuple(
      Thresholds(iou, iou, iou if assignment.region_best else 0.0) for iou in assignment.region_iou
    ),
    region_draw=_draw('region', sampling.regions, sampling.region_positives),
    box_loss=loss.box,
    box_weight=loss.box_weight,
    stage_weights=tuple(loss.stage_weights),
  )


def _draw(of: str, size: int, positives: int) -> Draw:
  if not 1 <= positives <= size:
    raise ValueError(
      f'sampling.{of}_positives={positives} must be at least 1 and at most sampling.{of}s={size}'
    )
  return Draw(size, positives)
