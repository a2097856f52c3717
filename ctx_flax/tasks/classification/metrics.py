"""Accuracies and recalls as (sum, count), so that they add up over devices and batches exactly."""

import jax
import jax.numpy as jnp

from ctx_flax.models.network import stages_of
from ctx_flax.tasks.classification.losses import stage_scores


def rank_of_label(scores, alive, labels):
  """How many alive classes come before the label, n where it is not alive itself: (b, n) twice, (b,) -> (b,).

  Ties go to the lower index, as in argmax. A label whose score is not a number comes last.
  """
  _, n = scores.shape
  is_label = jax.nn.one_hot(labels, n, dtype=bool)
  own = jnp.where(is_label, scores, 0.0).sum(-1, keepdims=True)
  later = jnp.arange(n)[None, :] >= labels[:, None]
  behind = (scores < own) | ((scores == own) & later)
  return jnp.where((alive & is_label).any(-1), (alive & ~behind).sum(-1), n)


def stage_metrics(out, labels, weights):
  """Accuracy of every stage and recall of the true class by every selection, over all images.

  Args:
    out: the second output of a model; plain models have stage 4 only.
    labels: int (b,).
    weights: float (b,), 0 for rows that only fill the batch, 1 for images.

  Returns:
    {name: (sum, count)}, float32 scalars, with the names
      accuracy1..accuracy4: the stage's best class is the label; a dropped label counts as wrong;
      recall2..recall4: the label is among the classes kept for the stage (merged into its context);
      accuracy, top5: of the last stage. Fewer than five considered classes do not let a dropped one in.
  """
  weights = weights.astype(jnp.float32)

  def counted(hits):
    return jnp.where(weights > 0, weights * hits, 0.0).sum(), weights.sum()

  metrics = {}
  for stage in stages_of(out):
    scores, alive = stage_scores(out, stage)
    rank = rank_of_label(scores, alive, labels)
    metrics[f'accuracy{stage}'] = metrics['accuracy'] = counted(rank == 0)
    metrics['top5'] = counted((rank < 5) & (rank < scores.shape[-1]))
    if stage > 1 and len(stages_of(out)) > 1:
      kept = out[f'considered{stage}'] & jax.nn.one_hot(
        labels, out[f'considered{stage}'].shape[-1], dtype=bool
      )
      metrics[f'recall{stage}'] = counted(kept.any(-1))
  return metrics
