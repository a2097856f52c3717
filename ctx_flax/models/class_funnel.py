"""The class selection between the stages of a network, for the networks here and for a backbone of your own.

Axes: b images, n classes. examples/own_backbone.py is a whole network around it.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from ctx_flax.layers.contextualizer import Contextualizer
from ctx_flax.layers.pooling import global_average_pool
from ctx_flax.models.intermediates import Intermediates


class ClassFunnel:
  """Scores the classes after every stage, excludes the unlikely ones, and merges the others into a context.

  Create one per call, inside the nn.compact method of a network, which owns the parameters of the
  contextualizer:

    funnel = ClassFunnel(Contextualizer(..., name='contextualizer'), len(images))
    x = stage1(images)
    funnel.narrow(x, 1)
    x = stage2(x, funnel.context)
    logits = funnel.narrow(x, 2)  # the last stage classifies
    return logits, funnel.out.finish()

  Attributes:
    contextualizer: the contextualizing layers, or None in a plain network.
    considered: bool (b, n), the classes that the next stage considers; None in a plain network.
    context: (b, context_dim), what they merge into: the context of the next stage's contextual
      convolutions; None before the first stage and in a plain network.
    out: the named intermediates. Of every stage s that has scores: 'scores{s}' (b, n) float32, 'logits{s}'
      (scores, -inf for excluded classes), 'considered{s}' (b, n) bool, what was merged into the context of
      stage s, and 'alive{s}' (b, n) bool, what stage s decides between: the same under 'reduction', all
      classes under 'rerank' and in plain networks. 'context{s}' of every stage from the second on.
  """

  def __init__(
    self,
    contextualizer: Contextualizer | None,
    batch_size: int,
    *,
    class_counts: jax.Array | None = None,
    add: Mapping[str, jax.Array] | None = None,
  ) -> None:
    """Begins with all classes.

    Args:
      contextualizer: a Contextualizer, or None in a plain network.
      batch_size: b.
      class_counts: int (stages - 1,), traced or not, instead of the contextualizer's.
      add: arrays added to named intermediates, see Intermediates.
    """
    self.contextualizer = contextualizer
    self.considered: jax.Array | None = None
    self.context: jax.Array | None = None
    self.out = Intermediates(add)
    self._class_counts = class_counts
    if contextualizer is not None:
      self.considered = jnp.ones((batch_size, contextualizer.num_classes), bool)

  def narrow(
    self, x: jax.Array, stage: int, valid: jax.Array | None = None, *, train: bool = False
  ) -> jax.Array | None:
    """Scores a stage and, except after the last one, selects the classes and the context of the next.

    Does nothing in a plain network, where `classify` records the only scores.

    Args:
      x: features of the stage, (b, h, w, c) or pooled (b, c).
      stage: its number, from 1; stages come in order.
      valid: bool (b, h, w, 1), the pixels to pool; None for all.
      train: for norms that use batch statistics.

    Returns:
      logits (b, n) float32, -inf for excluded classes; None in a plain network.
    """
    layers = self.contextualizer
    if layers is None or self.considered is None:
      return None
    pooled = global_average_pool(x, valid) if x.ndim == 4 else x
    considered = self.out.record(f'considered{stage}', self.considered)
    scores = self.out.record(f'scores{stage}', layers.score(pooled, stage, train=train))
    if layers.selection == 'reduction':
      alive, logits = considered, jnp.where(considered, scores, -jnp.inf)
    else:
      alive, logits = jnp.ones_like(considered), scores
    self.out.record(f'alive{stage}', alive)
    logits = self.out.record(f'logits{stage}', logits)
    if stage < len(layers.head_dims):
      count = None if self._class_counts is None else self._class_counts[stage - 1]
      self.considered = layers.select(scores, considered, stage, count)
      context = layers.context(self.considered, stage + 1)
      self.context = self.out.record(f'context{stage + 1}', context)
    return logits

  def classify(self, logits: jax.Array, stage: int) -> jax.Array:
    """Records the logits (b, n) of a plain class head, which decides between all classes; as float32."""
    logits = self.out.record(f'scores{stage}', logits.astype(jnp.float32))
    everything = jnp.ones(logits.shape, bool)
    self.out.update({f'considered{stage}': everything, f'alive{stage}': everything})
    self.out[f'logits{stage}'] = logits
    return logits
