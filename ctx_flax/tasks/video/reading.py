"""How clips go into a network, and what its stages decide about them.

Axes: b clips, n classes, k decisions about a clip: its frames where each decides for itself, its views in a
test, or both.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctx_flax.models.class_funnel import log_mean_probability
from ctx_flax.models.network import stages_of
from ctx_flax.tasks.classification.metrics import stage_metrics
from ctx_flax.tasks.classification.objective import Reading
from ctx_flax.training.task import Batch

AVERAGES = 'probabilities', 'scores'


def normalised(pixels: jax.Array, mean: Any, std: Any) -> jax.Array:
  """uint8 (..., 3) -> float32, (pixel / 255 - mean) / std; float pixels are normalised already.

  Workers send bytes, a quarter of what floats take, and the device divides.
  """
  if pixels.dtype != jnp.uint8:
    return pixels
  mean, std = (np.broadcast_to(np.asarray(value, np.float64), 3) for value in (mean, std))
  last = (1,) * (pixels.ndim - 1) + (3,)
  factor, less = (np.float32(value).reshape(last) for value in (1 / (255 * std), mean / std))
  return pixels.astype(jnp.float32) * factor - less


def reading(config: Any, model: Any) -> Reading:
  """The Reading of clips in training."""
  inputs = lambda batch: normalised(batch['image'], config.data.mean, config.data.std)
  if not per_frame(model):
    return Reading(inputs)
  return Reading(inputs, lambda out, batch: each_frame(out, batch, model.segments), frame_metrics)


def per_frame(model: Any) -> bool:
  """Whether the frames of a clip decide for themselves."""
  return model.contextual and model.segments > 1 and model.context == 'frame'


def each_frame(out: Mapping[str, Any], batch: Batch, frames: int) -> tuple[dict[str, Any], dict[str, Any]]:
  """What the frames of clips decide, (b, t, n) -> (b * t, n), and their labels: those of their clips."""
  names = 'label', 'weight', 'other_label', 'lam'
  rows = {name: jnp.repeat(batch[name], frames, 0) for name in names if name in batch}
  return {name: out[name].reshape(-1, out[name].shape[-1]) for name in decisions(out)}, rows


def frame_metrics(out: Mapping[str, Any], labels: jax.Array, weights: jax.Array) -> dict[str, Any]:
  """`stage_metrics` of clips whose frames decide for themselves.

  A clip's classes are those of the mean of its frames' probabilities; recall is the share of its frames that
  keep the label.
  """
  return decided(out, labels, weights)[1]


def together(out: Mapping[str, Any], average: str = 'probabilities') -> dict[str, Any]:
  """What k decisions about each clip say together.

  Args:
    out: scores{s}, logits{s} float, alive{s} and considered{s} bool, (b, k, n) each.
    average: of 'probabilities', in which a class that a decision excludes has 0, or of 'scores', for plain
      networks.

  Returns:
    The same arrays as (b, n), of one decision: scores and logits are the logarithms of mean probabilities,
    and a class is alive, or considered, where one decision has it so.
  """
  found: dict[str, Any] = {}
  for stage in stages_of(out):
    logits = out[f'logits{stage}']
    _, k, n = logits.shape
    if average == 'scores':
      scores = out[f'scores{stage}'].mean(1)
    else:
      scores = log_mean_probability(logits.reshape(-1, n), k)
    found |= {name: out[name].any(1) for name in (f'alive{stage}', f'considered{stage}')}
    found |= {f'scores{stage}': scores, f'logits{stage}': scores}
  return found


def decided(
  out: Mapping[str, Any], labels: jax.Array, weights: jax.Array, average: str = 'probabilities'
) -> tuple[dict[str, Any], dict[str, Any]]:
  """`together` and the metrics of `stage_metrics`, in which recalls are shares of the k decisions."""
  said = together(out, average)
  measured = stage_metrics(said, labels, weights)
  k = out[f'scores{stages_of(out)[-1]}'].shape[1]
  each, rows = each_frame(out, {'label': labels, 'weight': weights}, k)
  recalls = stage_metrics(each, rows['label'], rows['weight'])
  recalls = {
    name: (total / k, count / k) for name, (total, count) in recalls.items() if name.startswith('recall')
  }
  return said, measured | recalls


def decisions(out: Mapping[str, Any]) -> list[str]:
  """The names of what stages decide, among the outputs of a network."""
  kinds = 'scores', 'logits', 'alive', 'considered'
  return [f'{kind}{stage}' for stage in stages_of(out) for kind in kinds]
