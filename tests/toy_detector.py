"""A detector that compiles fast, for what its training does whatever the network is, and batches for it."""

from collections import namedtuple
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ctx_flax.models.detection.anchors import pyramid_anchors
from ctx_flax.ops import decode_boxes

SIDE, CLASSES, PLACES = 64, 3, 5
Proposals = namedtuple('Proposals', ['boxes', 'scores', 'valid'])


class ToyDetector(nn.Module):
  """Two maps of averaged colours, linear heads, and the best anchors as proposals."""

  stages: int = 2
  num_classes: int = CLASSES
  proposal_count: int = 20
  mask_side: int = 4
  axis_name: Any = None

  strides = 4, 8
  allowed_border = -1
  box_stds = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1))

  def setup(self):
    self.stem, self.anchor_head = nn.Dense(4), nn.Dense(15)
    self.box_heads = [nn.Dense(self.num_classes * 5 + 1) for _ in range(self.stages)]
    self.mask_heads = [nn.Dense(self.mask_side**2 * self.num_classes) for _ in range(self.stages)]

  def features(self, images, *, valid_hw, padded_hw, train):
    fine = self.stem(nn.avg_pool(images, (4, 4), (4, 4)))
    return [fine, nn.avg_pool(fine, (2, 2), (2, 2))], {}

  def rpn(self, pyramid):
    answers = [self.anchor_head(level) for level in pyramid]
    return [x[..., :3] for x in answers], [x[..., 3:].reshape(*x.shape[:-1], 3, 4) for x in answers]

  def proposals(self, logits, deltas, *, valid_hw, padded_hw, train):
    flat_logits = jnp.concatenate([x.reshape(len(x), -1) for x in logits], 1)
    flat_deltas = jnp.concatenate([x.reshape(len(x), -1, 4) for x in deltas], 1)
    anchors = pyramid_anchors([x.shape[1:3] for x in logits], self.strides)
    anchors = jnp.concatenate([x.reshape(-1, 4) for x in anchors])
    scores, best = jax.lax.top_k(jax.lax.stop_gradient(flat_logits), self.proposal_count)
    moves = jax.lax.stop_gradient(jnp.take_along_axis(flat_deltas, best[..., None], 1))
    boxes = jax.vmap(lambda d, b, hw: decode_boxes(d, b, hw=hw))(moves, anchors[best], valid_hw)
    return Proposals(boxes, scores, jnp.ones(scores.shape, bool))

  def box_head(self, pyramid, rois, valid, *, stage, padded_hw, train):
    answers = self.box_heads[stage](self._of_regions(pyramid, rois))
    classes, deltas = jnp.split(answers, [self.num_classes + 1], -1)
    return classes, deltas.reshape(*rois.shape[:2], self.num_classes, 4)

  def mask_head(self, pyramid, rois, *, stage, padded_hw):
    answers = self.mask_heads[stage](self._of_regions(pyramid, rois))
    return answers.reshape(*rois.shape[:2], self.mask_side, self.mask_side, self.num_classes)

  def refine(self, rois, deltas, labels, *, stage, valid_hw):
    own = jnp.take_along_axis(deltas, labels[:, :, None, None], 2)[:, :, 0]
    decode = lambda d, b, hw: decode_boxes(d, b, stds=self.box_stds[stage], hw=hw)
    return jax.lax.stop_gradient(jax.vmap(decode)(own, rois, valid_hw))

  def _of_regions(self, pyramid, rois):
    picture = jnp.broadcast_to(pyramid[0].mean((1, 2))[:, None], (*rois.shape[:2], 4))
    return jnp.concatenate([picture, rois / SIDE], -1)

  def __call__(self, images):
    hw = jnp.full((len(images), 2), SIDE)
    pyramid, _ = self.features(images, valid_hw=hw, padded_hw=hw, train=False)
    proposals = self.proposals(*self.rpn(pyramid), valid_hw=hw, padded_hw=hw, train=False)
    for stage in range(self.stages):
      self.box_head(pyramid, proposals.boxes, None, stage=stage, padded_hw=hw, train=False)
      self.mask_head(pyramid, proposals.boxes, stage=stage, padded_hw=hw)


def random_batch(size=4, seed=0):
  """Images of 64 x 50 to 64 pixels with up to four objects, the last of them without any."""
  rng = np.random.default_rng(seed)
  image_hw = np.stack([np.full(size, SIDE), rng.integers(50, SIDE + 1, size)], -1).astype(np.int32)
  first = rng.integers(0, 30, (size, PLACES, 2))
  boxes = np.concatenate([first, first + rng.integers(16, 34, (size, PLACES, 2))], -1).astype(np.float32)
  count = rng.integers(1, PLACES, size)
  count[-1] = 0
  labels = np.where(np.arange(PLACES) < count[:, None], rng.integers(0, CLASSES, (size, PLACES)), -1)
  rows = np.arange(SIDE)
  inside = [
    (rows >= boxes[..., i, None]) & (rows < boxes[..., i + 2, None]) for i in (0, 1)
  ]  # (b, g, w) and (b, g, h)
  masks = inside[1][..., :, None] & inside[0][..., None, :] & (labels[..., None, None] >= 0)
  return {
    'image': rng.integers(0, 256, (size, SIDE, SIDE, 3)).astype(np.uint8),
    'image_hw': image_hw,
    'index': rng.permutation(100)[:size].astype(np.int32),
    'boxes': boxes * (labels >= 0)[..., None],
    'labels': labels.astype(np.int32),
    'masks': np.packbits(masks, axis=-1),
    'weight': np.ones(size, np.float32),
  }


def initial_params(model, seed=0):
  """Random values, larger than those of a beginning, so that what is drawn matters."""
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3))))['params']
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.3, jnp.float32), shapes)
