"""Testing on clips: one view, or several whose predictions are averaged."""

from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.models.inference import apply_in_turn
from ctx_flax.models.network import stages_of
from ctx_flax.tasks.classification import losses, metrics
from ctx_flax.tasks.classification.objective import check_batch, hard_labels, loss_weights
from ctx_flax.tasks.video.reading import decided, decisions, normalised
from ctx_flax.training.task import Batch
from ctx_flax.training.terms import Means


class ClipEvaluator:
  """Tests a network of clips by the losses and metrics of its stages, with hard labels and no smoothing.

  Where there are several decisions about a clip, of views or of frames, their mean probabilities count (the
  mean scores where eval.average says so), and the loss is that of the mean.
  """

  def __init__(self, config: Any, model: Any):
    self._config, self._model, self._weights = config, model, loss_weights(config, model)

  def outputs(self, variables: Any, batch: Batch) -> tuple[dict[str, Any], dict[str, Any]]:
    """See ctx_flax.training.task.Evaluator; 'image' is (b, t, h, w, 3), or (b, views, t, h, w, 3)."""
    check_batch(batch)
    labels, weights = hard_labels(batch), batch['weight']
    out = self._decisions(variables, batch['image'])
    if out['scores' + str(stages_of(out)[-1])].ndim == 2:
      measured = metrics.stage_metrics(out, labels, weights)
    else:
      out, measured = decided(out, labels, weights, self._config.eval.average)
    stage_losses = losses.stage_losses(out, labels, weights=weights)
    return {f'loss{s}': value for s, value in stage_losses.items()} | measured, {}

  def _decisions(self, variables: Any, images: jax.Array) -> dict[str, jax.Array]:
    """The scores and classes of every stage, (b, n), or (b, k, n) of several decisions about a clip."""
    data = self._config.data

    def decide(view):
      _, out = apply_in_turn(self._model, variables, normalised(view, data.mean, data.std))
      return {name: out[name] for name in decisions(out)}

    if images.ndim == 5:
      return decide(images)
    # One view after the other: thirty of them take no more memory than one, but for their bytes.
    variables = {**variables, **self._model.class_tables(variables)}
    each = jax.lax.map(decide, jnp.moveaxis(images, 1, 0))
    b = images.shape[0]
    return {name: jnp.moveaxis(value, 0, 1).reshape(b, -1, value.shape[-1]) for name, value in each.items()}

  def tally(self, weights: str) -> Means:
    """Sums say it all."""
    return Means(self._weights)
