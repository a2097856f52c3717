"""Accuracy and loss terms of a network's outputs, networks without an adaptation, and contexts of sets.

Axes: b images, t frames of a clip that have contexts of their own, n classes, e context.
"""

import flax.traverse_util
import jax
import jax.numpy as jnp

from ctx_flax.models.network import stages_of
from ctx_flax.tasks.classification.losses import stage_scores


def reads_contexts(model):
  """Whether the contextual convolutions of a network read their context."""
  return model.adapts and 'context' not in model.ablate


def stage_terms(out, labels):
  """The terms of each stage's accuracy and loss, image by image; traced by jax.

  Args:
    out: the second output of a network, with one decision for each image.
    labels: int (b,).

  Returns:
    {name: (b,)}, of every stage s
      'correct{s}': bool, the best of the classes that it decides between is the label;
      'counted{s}': bool, the label is one of these;
      'loss{s}': float32, the cross-entropy over them, as in training; 0 where the label is none of them;
      'kept{s}': bool, it considers the label; of all but the first.
  """
  found = {}
  at_label = lambda x: jnp.take_along_axis(x, labels[:, None], axis=1)[:, 0]
  stages = stages_of(out)
  for stage in stages:
    scores, alive = stage_scores(out, stage)
    logits = jnp.where(alive, scores, -jnp.inf)
    counted = at_label(alive)
    found[f'correct{stage}'] = logits.argmax(-1) == labels
    found[f'counted{stage}'] = counted
    found[f'loss{stage}'] = jnp.where(counted, jax.nn.logsumexp(logits, axis=-1) - at_label(scores), 0.0)
    if stage != stages[0]:
      found[f'kept{stage}'] = at_label(out[f'considered{stage}'])
  return found


def without(model, name):
  """A network without one more adaptation, and a function that makes its variables from the network's.

  Without all of them blocks are plain and have no mask: their kernels are multiplied by the constant mask
  instead.

  Args:
    model: a network.
    name: of ADAPTATIONS.

  Returns:
    (network, function of variables).
  """
  network = model.clone(ablate=(*model.ablate, name))
  if network.adapts:
    return network, lambda variables: variables
  contextual = {
    f'stage{stage}_block{block}/{model.contextual_conv}/kernel'
    for stage, depth in enumerate(model.depths, 1)
    for block in range(depth)
    if model.is_contextual(stage, block)
  }
  factor = 0.5 * model.mask_gain

  def weighed(variables):
    params = flax.traverse_util.flatten_dict(variables['params'], sep='/')
    params = {path: factor * value if path in contextual else value for path, value in params.items()}
    return {**variables, 'params': flax.traverse_util.unflatten_dict(params, sep='/')}

  return network, weighed


def contexts_of(model, variables, considered):
  """{'context2': ..., ...} of sets of classes, bool (b, stages, [t], n): arrays (b, [t], e)."""
  contexts = {}
  for i in range(considered.shape[1]):
    sets = considered[:, i]
    context = model.contexts(variables, sets.reshape(-1, sets.shape[-1]), i + 2)
    contexts[f'context{i + 2}'] = context.reshape(*sets.shape[:-1], -1)
  return contexts
