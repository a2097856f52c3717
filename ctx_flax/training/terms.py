"""Losses and metrics as (sum, count), so that they add up over devices, parts and batches exactly."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

# {name: (sum, count)}, float32 scalars.
Terms = Mapping[str, tuple[Any, Any]]


def weighted_loss(
  sums: Mapping[str, jax.Array], counts: Mapping[str, jax.Array], weights: Mapping[str, float]
) -> jax.Array:
  """The sum over the losses of weight * sum / count, 0 for a loss that counts no example.

  Args:
    sums: {name: scalar}; on several devices each device's own sum, whose results then add up to the loss.
    counts: {name: scalar}, over all devices.
    weights: {name: float}, of these losses and possibly others.

  Returns:
    The loss, a scalar.
  """
  return sum(
    (weights[name] * (sums[name] / jnp.maximum(counts[name], 1.0)) for name in sums), start=jnp.zeros(())
  )


def add(total: Any, terms: Any) -> Any:
  """The terms of two batches together; `total` is {} before the first. Does not wait for the device."""
  if not total:
    return terms
  return jax.tree.map(lambda a, b: a + b, total, terms)


def summarise(terms: Terms, weights: Mapping[str, float]) -> dict[str, float]:
  """Divides sums by counts, on the host: {name: (sum, count)} -> {name: float}.

  'loss' is put together from the losses, those that `weights` names, each over all examples that were added
  up, so it does not depend on how they were split into batches. A mean over no example is 0.
  """
  terms = jax.device_get(terms)
  values = {name: float(total) / max(float(count), 1.0) for name, (total, count) in terms.items()}
  weighed = [weight * values[name] for name, weight in weights.items() if name in values]
  if weighed:
    values['loss'] = sum(weighed)
  return values


class Means:
  """The Tally of metrics that are all sums over counts."""

  def __init__(self, weights: Mapping[str, float]):
    self._weights = weights

  def add(self, rows: Mapping[str, Any]) -> None:
    """Takes nothing: sums say it all."""

  def result(self, sums: Terms) -> dict[str, float]:
    """{name: sum / count}, and 'loss' put together by the weights."""
    return summarise(sums, self._weights)
