"""The class selection between the stages of a network, for the networks here and for a backbone of your own.

Axes: b images or clips, t frames, n classes. examples/own_backbone.py is a whole network around it.
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
      convolutions; None before the first stage and in a plain network. On clips (b * t, context_dim), a row
      for every frame.
    out: the named intermediates. Of every stage s that has scores: 'scores{s}' (b, n) float32, 'logits{s}'
      (scores, -inf for excluded classes), 'considered{s}' (b, n) bool, what was merged into the context of
      stage s, and 'alive{s}' (b, n) bool, what stage s decides between: the same under 'reduction', all
      classes under 'rerank' and in plain networks. 'context{s}' of every stage from the second on. On clips
      whose frames decide for themselves these are (b, t, n) and (b, t, context_dim).
  """

  def __init__(
    self,
    contextualizer: Contextualizer | None,
    batch_size: int,
    *,
    class_counts: jax.Array | None = None,
    add: Mapping[str, jax.Array] | None = None,
    replace: Mapping[str, jax.Array] | None = None,
    frames: int = 1,
    per_frame: bool = False,
  ) -> None:
    """Begins with all classes.

    Args:
      contextualizer: a Contextualizer, or None in a plain network.
      batch_size: b, images or clips.
      class_counts: int (stages - 1,), traced or not, instead of the contextualizer's.
      add, replace: arrays added to named intermediates, and arrays that take their place, see Intermediates.
      frames: t; above 1, features come as (b * t, ...), clip by clip, and the scores of a clip are the mean
        of its frames' scores.
      per_frame: every frame has scores, considered classes and a context of its own instead.
    """
    self.contextualizer = contextualizer
    self.considered: jax.Array | None = None
    self.context: jax.Array | None = None
    self.out = Intermediates(add, frames, replace)
    self._class_counts = class_counts
    self._frames, self._per_frame = frames, per_frame
    if contextualizer is not None:
      rows = batch_size * frames if per_frame else batch_size
      self.considered = jnp.ones((rows, contextualizer.num_classes), bool)

  def narrow(
    self, x: jax.Array, stage: int, valid: jax.Array | None = None, *, train: bool = False
  ) -> jax.Array | None:
    """Scores a stage and, except after the last one, selects the classes and the context of the next.

    Does nothing in a plain network, where `classify` records the only scores.

    Args:
      x: features of the stage, (b, h, w, c) or pooled (b, c); (b * t, ...) on clips.
      stage: its number, from 1; stages come in order.
      valid: bool (b, h, w, 1), the pixels to pool; None for all.
      train: for norms that use batch statistics.

    Returns:
      logits (b, n) float32, -inf for excluded classes; None in a plain network. Where frames decide for
      themselves, log of the mean of their probabilities: -inf for what all of them excluded.
    """
    layers = self.contextualizer
    if layers is None or self.considered is None:
      return None
    pooled = global_average_pool(x, valid) if x.ndim == 4 else x
    considered = self._record(f'considered{stage}', self.considered)
    scores = self._record(f'scores{stage}', self._of_clips(layers.score(pooled, stage, train=train)))
    if layers.selection == 'reduction':
      alive, logits = considered, jnp.where(considered, scores, -jnp.inf)
    else:
      alive, logits = jnp.ones_like(considered), scores
    self._record(f'alive{stage}', alive)
    logits = self._record(f'logits{stage}', logits)
    if stage < len(layers.head_dims):
      count = None if self._class_counts is None else self._class_counts[stage - 1]
      self.considered = layers.select(scores, considered, stage, count)
      context = self._record(f'context{stage + 1}', layers.context(self.considered, stage + 1))
      self.context = context if self._per_frame or self._frames == 1 else jnp.repeat(context, self._frames, 0)
    return log_mean_probability(logits, self._frames) if self._per_frame else logits

  def classify(self, logits: jax.Array, stage: int) -> jax.Array:
    """Records the logits (b, n) of a plain class head, which decides between all classes; as float32.

    On clips they are (b * t, n), and the mean over the frames (b, n) is recorded and returned.
    """
    logits = self.out.record(f'scores{stage}', self._of_clips(logits.astype(jnp.float32)))
    everything = jnp.ones(logits.shape, bool)
    self.out.update({f'considered{stage}': everything, f'alive{stage}': everything})
    self.out[f'logits{stage}'] = logits
    return logits

  def _record(self, name: str, value: jax.Array) -> jax.Array:
    return self.out.record(name, value, of_frames=self._per_frame)

  def _of_clips(self, scores: jax.Array) -> jax.Array:
    """The scores (b * t, n) of frames as those of clips, (b, n), unless each frame keeps its own."""
    if self._frames == 1 or self._per_frame:
      return scores
    return scores.reshape(-1, self._frames, scores.shape[-1]).mean(1)


def log_mean_probability(logits: jax.Array, frames: int) -> jax.Array:
  """The logits (b * t, n) of frames -> (b, n): log of the mean over frames of each one's probabilities.

  A class that one frame excludes has probability 0 there. -inf, without a gradient, where all exclude it.
  """
  log_probabilities = jax.nn.log_softmax(logits).reshape(-1, frames, logits.shape[-1])
  excluded = (log_probabilities == -jnp.inf).all(1, keepdims=True)
  # logsumexp of nothing but -inf has no gradient that is a number.
  mean = jax.nn.logsumexp(jnp.where(excluded, 0.0, log_probabilities), axis=1) - jnp.log(frames)
  return jnp.where(excluded[:, 0], -jnp.inf, mean)
