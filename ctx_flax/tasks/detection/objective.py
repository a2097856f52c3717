"""What a detector minimises: the losses of its region proposals and of every stage of its heads.

Axes: b images, p proposals, s sampled regions, g objects, n classes.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_flax.tasks.detection.anchor_losses import anchor_losses
from ctx_flax.tasks.detection.images import network_inputs
from ctx_flax.tasks.detection.region_losses import box_losses, first, mask_losses
from ctx_flax.tasks.detection.regions import Regions, refined, sample_regions
from ctx_flax.tasks.detection.settings import Settings, settings_of
from ctx_flax.training.parallel import AXIS
from ctx_flax.training.state import as_variables
from ctx_flax.training.task import Batch, Objective, Outputs

NEEDED = 'image', 'image_hw', 'index', 'boxes', 'labels', 'masks', 'weight'


def objective(config: Any, model: Any, total_steps: int = 0) -> Objective:
  """The Objective of a detector; BatchNorm takes its statistics over all devices, whatever its axis_name.

  Its losses are those of Settings.loss_weights. What is drawn for an image follows from config.seed, the step
  and the image's index alone, not from the batch and the device that it is on. The counts of losses depend on
  the proposals, and so on the network: accumulation runs a forward pass first.

  Args:
    config: uses seed, data.{mean, std}, assignment, sampling and loss.
    model: a detector of ctx_flax.models.
    total_steps: has no effect.

  Raises:
    ValueError: fields that contradict each other or the detector; when traced, a batch without its arrays.
  """
  del total_steps
  settings = settings_of(config)
  if len(settings.stage_weights) != model.stages:
    raise ValueError(
      f'{config.model.name} has {model.stages} stages, but loss.stage_weights={settings.stage_weights}: '
      'expected a weight for each'
    )
  # The state is one for all devices, so the statistics of BatchNorm must be those of the whole batch.
  model = model.clone(axis_name=AXIS)

  def terms(params, batch_stats, batch, key, step):
    check_batch(batch)
    images, extents = network_inputs(batch, config.data.mean, config.data.std)
    draws = jax.random.fold_in(jax.random.key(config.seed), step)
    run = nn.apply(
      lambda model: training_terms(model, images, batch, extents, draws, settings),
      model,
      mutable=['batch_stats'],
    )
    (losses, metrics), updated = run(as_variables(params, batch_stats), rngs={'drop_path': key})
    return Outputs(losses, metrics, updated.get('batch_stats', {}))

  return Objective(terms, settings.loss_weights)


def check_batch(batch: Batch) -> None:
  """Raises ValueError for a batch that lacks an array, or a place for objects."""
  missing = set(NEEDED) - set(batch)
  if missing:
    raise ValueError(
      f'a batch needs {", ".join(NEEDED)}, but {sorted(missing)} is missing: it has {sorted(batch)}'
    )
  if not batch['boxes'].shape[1]:
    raise ValueError(
      f'boxes has shape {batch["boxes"].shape}: expected a place at least, with label -1 if it is empty'
    )


def training_terms(
  model: Any,
  images: jax.Array,
  batch: Batch,
  extents: dict[str, jax.Array],
  key: jax.Array,
  settings: Settings,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Losses and metrics of a batch, {name: (sum, count)} twice.

  The losses are those of Settings.loss_weights. The metrics are accuracy0, accuracy1, ..., the share of a
  stage's regions whose best class is right, and positives0, ..., how many of them belong to an object, per
  image.

  Args:
    model: the detector, bound.
    images: (b, h, w, 3), normalised.
    batch: 'index' int (b,); 'boxes' (b, g, 4); 'labels' int (b, g), -1 where there is no object; 'masks'
      uint8 (b, g, h, w / 8), packed bits; 'weight' (b,).
    extents: {'valid_hw': (b, 2), 'padded_hw': (b, 2)} of the images.
    key: of all draws; what is drawn for an image follows from this and its index.
    settings: of the training.
  """
  present = batch['weight'] > 0
  batch = {**batch, 'labels': jnp.where(present[:, None], batch['labels'], -1)}
  image_keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch['index'])

  def keys(number):
    return jax.vmap(lambda image_key: jax.random.fold_in(image_key, number))(image_keys)

  pyramid, _ = model.features(images, **extents, train=True)
  logits, deltas = model.rpn(pyramid)
  losses = anchor_losses(model, logits, deltas, batch, extents, keys(0), settings)
  proposals = model.proposals(logits, deltas, **extents, train=True)
  rois, valid = proposals.boxes, proposals.valid & present[:, None]
  metrics: dict[str, Any] = {}
  for stage in range(len(settings.stage_weights)):
    regions = draw_regions(rois, valid, batch, keys(stage + 1), settings, stage, model.num_classes)
    of_stage, measured, (rois, valid) = stage_terms(model, pyramid, regions, batch, extents, settings, stage)
    losses |= {f'{name}{stage}': term for name, term in of_stage.items()}
    metrics |= {f'{name}{stage}': term for name, term in measured.items()}
  return losses, metrics


def draw_regions(
  rois: jax.Array,
  valid: jax.Array,
  batch: Batch,
  keys: jax.Array,
  settings: Settings,
  stage: int,
  num_classes: int,
) -> Regions:
  """The regions that a stage learns from: proposals (b, p, 4), valid (b, p), keys (b,)."""

  def of_image(rois, valid, boxes, labels, key):
    thresholds, draw = settings.regions[stage], settings.region_draw
    return sample_regions(rois, valid, boxes, labels, key, thresholds, draw, num_classes)

  return jax.vmap(of_image)(rois, valid, batch['boxes'], batch['labels'], keys)


def stage_terms(
  model: Any,
  pyramid: list[jax.Array],
  regions: Regions,
  batch: Batch,
  extents: dict[str, jax.Array],
  settings: Settings,
  stage: int,
) -> tuple[dict[str, Any], dict[str, Any], tuple[jax.Array, jax.Array]]:
  """Losses and metrics of a stage, {name: (sum, count)} twice, and (boxes, valid) for the next one."""
  padded_hw, positives = extents['padded_hw'], settings.region_draw.positives
  logits, deltas = model.box_head(
    pyramid, regions.boxes, regions.valid, stage=stage, padded_hw=padded_hw, train=True
  )
  losses = box_losses(
    logits, deltas, regions, batch['boxes'], model.box_stds[stage], positives, settings.box_loss
  )
  likely = first(regions, positives)
  masks = model.mask_head(pyramid, likely.boxes, stage=stage, padded_hw=padded_hw)
  losses |= mask_losses(masks, likely, batch['masks'], padded_hw)
  right = (logits.argmax(-1) == regions.labels) & regions.valid
  metrics = {
    'accuracy': (_count(right), _count(regions.valid)),
    'positives': (_count(regions.positive), _count(batch['weight'] > 0)),
  }
  return losses, metrics, refined(model, regions, logits, deltas, extents['valid_hw'], stage)


def _count(mask):
  return mask.sum(dtype=jnp.float32)
