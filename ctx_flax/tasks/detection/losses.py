"""The losses of detectors as sums and counts: a loss is sum / max(count, 1), over all devices.

Axes: b images, s sampled boxes, n classes, h w pixels of a mask. Float32 whatever the dtype of the outputs.
Boxes that do not count must be finite; what they add is 0.

Source: MMDetection 2.11. Its counts are those of one GPU, and GPUs are averaged afterwards; here they are
those of the whole batch, so that the loss does not depend on how images are divided among devices.
"""

import jax
import jax.numpy as jnp

from ctx_flax.ops import generalised_box_iou

Term = tuple[jax.Array, jax.Array]  # (sum, count), float32 scalars


def object_loss(logits: jax.Array, positive: jax.Array, valid: jax.Array) -> jax.Array:
  """Sum of the binary cross-entropies of object (positive) or background: (b, s) three times -> scalar."""
  logits = logits.astype(jnp.float32)
  return _sum(jax.nn.softplus(logits) - logits * positive, valid)


def proposal_count(positive: jax.Array, valid: jax.Array, present: jax.Array) -> jax.Array:
  """What both losses of a region proposal network are divided by.

  Args:
    positive, valid: bool (b, s), of the sampled anchors.
    present: bool (b,), False for rows that only fill the batch.

  Returns:
    The sum over the images of max(positive anchors, 1) + max(negative anchors, 1).
  """
  positives, negatives = (positive & valid).sum(-1), (~positive & valid).sum(-1)
  return _sum(jnp.maximum(positives, 1) + jnp.maximum(negatives, 1), present)


def smooth_l1_loss(deltas: jax.Array, targets: jax.Array, counted: jax.Array, beta: float = 0.0) -> jax.Array:
  """Sum over coordinates of d^2 / (2 beta) for d = |delta - target| below beta, d - beta / 2 above.

  Args:
    deltas, targets: (b, s, 4).
    counted: bool (b, s).
    beta: 0 is the L1 loss.
  """
  difference = jnp.abs(deltas.astype(jnp.float32) - targets)
  if beta:
    difference = jnp.where(difference < beta, difference**2 / (2 * beta), difference - beta / 2)
  return _sum(difference.sum(-1), counted)


def giou_loss(boxes: jax.Array, targets: jax.Array, counted: jax.Array) -> jax.Array:
  """Sum of 1 - generalised IoU: (b, s, 4) twice, bool (b, s) -> scalar."""
  return _sum(1 - generalised_box_iou(boxes.astype(jnp.float32), targets), counted)


def class_loss(logits: jax.Array, labels: jax.Array, valid: jax.Array) -> Term:
  """The cross-entropies of sampled boxes: logits (b, s, n + 1), labels int (b, s), n for background."""
  log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
  own = jnp.take_along_axis(log_probabilities, labels[..., None], -1)[..., 0]
  return _sum(-own, valid), valid.sum(dtype=jnp.float32)


def mask_loss(logits: jax.Array, targets: jax.Array, counted: jax.Array) -> Term:
  """The binary cross-entropies of masks, averaged over pixels: (b, s, h, w) twice, bool (b, s)."""
  logits = logits.astype(jnp.float32)
  pixels = jax.nn.softplus(logits) - logits * targets
  return _sum(pixels.mean((-2, -1)), counted), counted.sum(dtype=jnp.float32)


def _sum(values, counted):
  return jnp.where(counted, values, 0.0).sum(dtype=jnp.float32)
