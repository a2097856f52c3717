"""The cross-entropies of the stages, as sums and counts.

Axes: b images, n classes. Stages are keyed by their number: all of them for contextual networks, the last
alone for plain ones. Sums and counts rather than means: they add up over devices and batches, and under
'reduction' every stage, device and batch counts another number of images.

The paper gives one cross-entropy per stage; that an image whose label was dropped does not count follows
from the released code's ignore_index. The rule for soft targets under 'reduction' is ours.
"""

import jax
import jax.numpy as jnp

from ctx_flax.models.network import stages_of


def stage_scores(out, stage):
  """The float32 scores (b, n) of a stage and the classes (bool b n) between which it decides."""
  return out[f'scores{stage}'].astype(jnp.float32), out[f'alive{stage}']


def heavier_first(labels, other_labels, lam):
  """Exchanges the two labels where lam < 0.5: (b,), (b,), (b,) -> the same, with lam >= 0.5."""
  swap = lam < 0.5
  return (
    jnp.where(swap, other_labels, labels),
    jnp.where(swap, labels, other_labels),
    jnp.where(swap, 1 - lam, lam),
  )


def cross_entropy(scores, alive, targets):
  """-sum of targets * log softmax over the alive classes: (b, n) three times -> (b,).

  Scores outside `alive` are masked before anything is multiplied (0 * -inf is NaN) and get no gradient.
  """
  masked = jnp.where(alive, scores, -jnp.inf)
  # A row without any alive class would be all -inf; such a row has no targets, so any finite value will do.
  masked = jnp.where(alive.any(-1, keepdims=True), masked, 0.0)
  log_total = jax.nn.logsumexp(masked, axis=-1, keepdims=True)
  log_probabilities = jnp.where(alive, scores - log_total, 0.0)
  return -(targets * log_probabilities).sum(-1)


def stage_losses(out, labels, *, label_smoothing=0.0, other_labels=None, lam=None, weights=None):
  """Cross-entropy of every stage over the classes it decides between, summed over the images that count.

  With a the heavier of an image's labels and lam its weight, b the other, n_s the number of classes alive
  at stage s, and w = lam where b is alive and 1 elsewhere, the target is
    eps / n_s + (1 - eps) * (w [n = a] + (1 - w) [n = b])   on the alive classes, 0 elsewhere.
  An image whose label a was dropped before a stage does not count there. Under 'rerank' all classes are
  alive at every stage, so all stages have the same target. Float32 whatever the dtype of the scores.

  Args:
    out: the second output of a model: scores{s} (b, n), alive{s} (bool b n); the last stage alone if plain.
    labels: int (b,), each in 0..n-1 (an image with another label does not count).
    label_smoothing: eps.
    other_labels: int (b,), the second label of mixed images; goes with `lam`.
    lam: float (b,) in 0..1, the weight of `labels`; 1 - lam is that of `other_labels`.
    weights: float (b,), 0 for rows that only fill the batch, 1 for images; all 1 where not given.

  Returns:
    {s: (sum, count)}, float32 scalars.

  Raises:
    ValueError: for a label_smoothing of 1 or more or below 0, or one of
      other_labels and lam without the other.
  """
  if not 0 <= label_smoothing < 1:
    raise ValueError(f'label_smoothing must be at least 0 and below 1, but is {label_smoothing}')
  if (other_labels is None) != (lam is None):
    given = 'lam' if other_labels is None else 'other_labels'
    raise ValueError(f'other_labels and lam describe mixed images together, but only {given} is given')
  if other_labels is None:
    other_labels, lam = labels, jnp.ones(labels.shape, jnp.float32)
  if weights is None:
    weights = jnp.ones(labels.shape, jnp.float32)
  first, second, lam = heavier_first(labels, other_labels, lam.astype(jnp.float32))
  weights = weights.astype(jnp.float32)

  losses = {}
  for stage in stages_of(out):
    scores, alive = stage_scores(out, stage)
    is_first = alive & jax.nn.one_hot(first, scores.shape[-1], dtype=bool)
    is_second = alive & jax.nn.one_hot(second, scores.shape[-1], dtype=bool)
    weight_first = jnp.where(is_second.any(-1), lam, 1.0)[:, None]
    targets = (1 - label_smoothing) * (weight_first * is_first + (1 - weight_first) * is_second)
    targets += jnp.where(alive, label_smoothing / jnp.maximum(alive.sum(-1, keepdims=True), 1), 0.0)
    counts = weights * is_first.any(-1)
    # where, not a product: a row that does not count must not reach the sum, even if it is not finite.
    loss = jnp.where(counts > 0, counts * cross_entropy(scores, alive, targets), 0.0)
    losses[stage] = (loss.sum(), counts.sum())
  return losses
