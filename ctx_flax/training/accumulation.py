"""Gradients of a device's rows in several parts, one after the other: less memory, the same gradient.

A device's loss is its own sums over the counts of all devices, so that the devices' losses and gradients add
up to those of the whole batch, also if losses count different numbers of rows per device. In parts the same
holds with the counts of all parts. If the counts depend on the network, a forward pass over all parts comes
first to count: about a third more work. BatchNorm takes its statistics over one part on all devices, and its
running ones are updated once a part.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.training.parallel import AXIS
from ctx_flax.training.task import Objective
from ctx_flax.training.terms import weighted_loss


def gradients_of(objective: Objective, params, batch_stats, part, key, step, counts=None):
  """(gradients, batch statistics, {name: (sum, count)}) of a part of a device's rows.

  Args:
    objective: what is minimised.
    params, batch_stats: of the network.
    part: the rows.
    key: of everything random in the forward pass.
    step: of the update, from 0.
    counts: {name of a loss: count over all devices and parts}; None: those of this part.
  """

  def loss_function(params):
    terms = objective.terms(params, batch_stats, part, key, step)
    total = counts
    if total is None:
      total = jax.lax.psum({name: count for name, (_, count) in terms.losses.items()}, AXIS)
    total = jax.lax.stop_gradient({name: total[name] for name in terms.losses})
    sums = {name: value for name, (value, _) in terms.losses.items()}
    loss = weighted_loss(sums, total, objective.weights)
    return loss, (terms.batch_stats, {**terms.losses, **terms.metrics})

  gradients, (updated, terms) = jax.grad(loss_function, has_aux=True)(params)
  return gradients, updated, terms


def accumulated_gradients(objective: Objective, parts: int, params, batch_stats, batch, key, step):
  """`gradients_of` all rows of a device, in `parts` parts."""
  rows = split(batch, parts)
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(parts))
  if objective.counts is not None:
    counts = jax.lax.psum(objective.counts(batch), AXIS)
  else:

    def count(_, inputs):
      # With the keys of the gradients' pass: what is random in the network may change what counts.
      part, key = inputs
      terms = objective.terms(params, batch_stats, part, key, step)
      return None, {name: count for name, (_, count) in terms.losses.items()}

    _, counted = jax.lax.scan(count, None, (rows, keys))
    counts = jax.lax.psum(jax.tree.map(lambda x: x.sum(0), counted), AXIS)

  def add_part(carry, inputs):
    (gradients, batch_stats), (part, key) = carry, inputs
    more, batch_stats, terms = gradients_of(objective, params, batch_stats, part, key, step, counts)
    return (jax.tree.map(jnp.add, gradients, more), batch_stats), terms

  start = jax.tree.map(jnp.zeros_like, params), batch_stats
  (gradients, batch_stats), terms = jax.lax.scan(add_part, start, (rows, keys))
  return gradients, batch_stats, jax.tree.map(lambda x: x.sum(0), terms)


def split(batch: dict[str, Any], parts: int) -> dict[str, Any]:
  """(b, ...) -> (parts, b / parts, ...) of every array; ValueError if the rows cannot be divided."""
  rows = len(next(iter(batch.values())))
  if rows % parts:
    raise ValueError(f'the {rows} rows of a device cannot be divided by train.accumulation={parts}')
  return {name: value.reshape(parts, rows // parts, *value.shape[1:]) for name, value in batch.items()}
