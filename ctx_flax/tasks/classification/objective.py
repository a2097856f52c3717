"""What classification minimises: one cross-entropy per stage, the last with weight 1."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.models.inference import apply_in_turn
from ctx_flax.tasks.classification import losses, metrics
from ctx_flax.tasks.classification.class_counts import class_counts_at, final_class_counts
from ctx_flax.training.parallel import AXIS
from ctx_flax.training.state import as_variables
from ctx_flax.training.task import Batch, Objective, Outputs
from ctx_flax.training.terms import Means

NORMALISE = 'counted', 'batch'


@dataclasses.dataclass(frozen=True)
class Reading:
  """How a batch goes into a network, and what of its outputs has a label; by default images, one label each.

  Attributes:
    inputs: batch -> what the network takes.
    decisions: (out, batch) -> the two with a row for everything that decides between classes.
    metrics: (out, labels (b,), weights (b,)) -> {name: (sum, count)}.
  """

  inputs: Callable[[Batch], jax.Array] = lambda batch: batch['image']
  decisions: Callable[[Any, Batch], tuple[Any, Batch]] = lambda out, batch: (out, batch)
  metrics: Callable[..., dict[str, Any]] = metrics.stage_metrics


IMAGES = Reading()


def objective(config: Any, model: Any, total_steps: int = 0, reading: Reading = IMAGES) -> Objective:
  """The Objective of a network; BatchNorm takes its statistics over all devices, whatever its axis_name.

  Its losses are loss1..loss4; its metrics those of `stage_metrics`, taken against the heavier label of mixed
  images, and class_count2..4 while they shrink. Batches hold 'image' (b, h, w, c), 'label' int (b,), 'weight'
  (b,) and for mixed images 'other_label' and 'lam' (b,).

  Args:
    config: uses loss, train.class_counts_warmup and init.freeze_norm (BatchNorm normalises with its running
      statistics, which stay as they are).
    model: a network of ctx_flax.models.
    total_steps: of the run; only class_counts_warmup needs it.
    reading: how batches and outputs are read.

  Raises:
    ValueError: for class_counts_warmup without total_steps or with a plain network; when traced, for a batch
      without its arrays.
  """
  warmup, contextual = config.train.class_counts_warmup, getattr(model, 'contextual', False)
  if warmup and not (contextual and total_steps):
    problem = 'the number of steps' if contextual else 'a contextual network'
    raise ValueError(f'train.class_counts_warmup={warmup} needs {problem}')
  weights = loss_weights(config, model)
  # Whether every image counts at every stage, so that the counts follow from the batch alone.
  all_count = (
    config.loss.normalise == 'batch'
    or not contextual
    or getattr(model, 'class_selection', 'rerank') == 'rerank'
  )
  norm = {'train_norm': False} if config.init.freeze_norm else {}
  if hasattr(model, 'axis_name'):
    # The state is one for all devices, so the statistics of BatchNorm must be those of the whole batch.
    model = model.clone(axis_name=AXIS)

  def terms(params, batch_stats, batch, key, step):
    check_batch(batch)
    shrinking, counts = {}, None
    if warmup:
      final = final_class_counts(model)
      counts = class_counts_at(step, total_steps, warmup, model.num_classes, final)
      shrinking = {'class_counts': counts}
    (_, out), updated = model.apply(
      as_variables(params, batch_stats),
      reading.inputs(batch),
      train=True,
      mutable=['batch_stats'],
      rngs={'drop_path': key, 'dropout': jax.random.fold_in(key, 1)},
      **shrinking,
      **norm,
    )
    deciding, rows = reading.decisions(out, batch)
    stage_losses = losses.stage_losses(
      deciding,
      rows['label'],
      label_smoothing=config.loss.label_smoothing,
      other_labels=rows.get('other_label'),
      lam=rows.get('lam'),
      weights=rows['weight'],
    )
    if config.loss.normalise == 'batch':
      stage_losses = {s: (total, rows['weight'].sum()) for s, (total, _) in stage_losses.items()}
    measured = reading.metrics(out, hard_labels(batch), batch['weight'])
    if counts is not None:
      numbers = zip(range(2, 2 + len(final)), counts, strict=True)
      measured |= {f'class_count{s}': (count.astype(jnp.float32), jnp.ones(())) for s, count in numbers}
    named = {f'loss{s}': value for s, value in stage_losses.items()}
    return Outputs(named, measured, updated.get('batch_stats', {}))

  def counts(batch):
    _, rows = reading.decisions({}, batch)
    return dict.fromkeys(weights, rows['weight'].astype(jnp.float32).sum())

  return Objective(terms, weights, counts if all_count else None)


def loss_weights(config: Any, model: Any) -> dict[str, float]:
  """{'loss1': alpha, ..., 'loss4': 1}; a plain network has the last alone."""
  last = len(model.dims)
  early = range(1, last) if model.contextual else ()
  return {f'loss{s}': config.loss.alpha for s in early} | {f'loss{last}': 1.0}


def check_batch(batch: Batch) -> None:
  """Raises ValueError for a batch that lacks an array."""
  missing = {'image', 'label', 'weight'} - set(batch)
  if missing:
    raise ValueError(
      f'a batch needs image, label and weight, but {sorted(missing)} is missing: {sorted(batch)}'
    )


def hard_labels(batch: Batch) -> jax.Array:
  """int (b,): the label of each image, of a mixed one the heavier."""
  if 'lam' not in batch:
    return batch['label']
  return losses.heavier_first(batch['label'], batch['other_label'], batch['lam'])[0]


class StageEvaluator:
  """Tests a network by the losses and metrics of its stages, with hard labels and no label smoothing."""

  def __init__(self, config: Any, model: Any):
    self._model, self._weights = model, loss_weights(config, model)

  def outputs(self, variables: Any, batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
    """See ctx_flax.training.task.Evaluator; rows of weight 0 count as absent."""
    check_batch(batch)
    _, out = apply_in_turn(self._model, variables, batch['image'])
    stage_losses = losses.stage_losses(out, batch['label'], weights=batch['weight'])
    named = {f'loss{s}': value for s, value in stage_losses.items()}
    return named | metrics.stage_metrics(out, hard_labels(batch), batch['weight']), {}

  def tally(self, weights: str) -> Means:
    """Sums say it all."""
    return Means(self._weights)
