"""Class activation maps: which positions of a stage's features a class's score rests on.

Axes: b images, h w positions of the stage (t h w of clips), c channels. A are the features, g the gradient of
the score S of the class with respect to them.
  Grad-CAM (https://arxiv.org/abs/1610.02391):  relu(sum_c mean_hw(g) A)
  HiResCAM (https://arxiv.org/abs/2011.08891):  relu(sum_c g A)
  Grad-CAM++ (https://arxiv.org/abs/1710.11063), with exp(S) as the score: relu(sum_c w A) with
    w = sum_hw(a relu(g)) and a = g^2 / (2 g^2 + sum_hw(A) g^3); the factor exp(S) of a whole map is left out.
HiResCAM is zero at stages 1-3 of a ConvNeXt: the LayerNorm that follows does not see by how much all channels
of a position are multiplied, so that there g is at right angles to A.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ctx_flax.models.network import stages_of

METHODS = 'grad_cam', 'hirescam', 'grad_cam++'
# Of the sum of the sizes of what is added up: less is not told from zero. More than rounding, because the
# epsilon of a LayerNorm lets through up to 2e-4 of what it should cancel (trained networks); real evidence is
# at 1e-1.
CANCELLED = 1e-3
LEAST = 4  # side of a map that is worth looking at


def class_activation_map(model, variables, images, classes, stage=0, method='grad_cam'):
  """Maps of one class per image, from the network's named intermediates; may be jitted.

  The score is that of the last stage, which is finite for classes that a selection has dropped too. No
  gradient passes through the selections: the classes that were chosen stay what they are.

  Args:
    model: a network of ctx_flax.models, contextual or plain.
    variables: its variables.
    images: (b, s, s, 3), or clips (b, t, s, s, 3); normalised.
    classes: int (b,).
    stage: whose features are weighted; 0 for the last.
    method: of METHODS.

  Returns:
    (maps float32 (b, h, w), of clips (b, t, h, w), 0 or more, not normalised; scores float32 (b,)).

  Raises:
    ValueError: an unknown method or stage.
  """
  check(stage, method, len(model.dims))
  name = f'stage{stage or len(model.dims)}'
  found = jax.eval_shape(functools.partial(_intermediates, model), variables, images)[name]
  zeros = jnp.zeros(found.shape, found.dtype)

  def total(extra):
    _, out = model.apply(variables, images, train=False, add={name: extra})
    scores = out[f'scores{stages_of(out)[-1]}'].astype(jnp.float32)
    if scores.ndim == 3:  # of frames that decide for themselves
      scores = scores.mean(1)
    picked = jnp.take_along_axis(scores, classes[:, None], axis=1)[:, 0]
    # Images do not see one another: the gradient of the sum is that of each score.
    return picked.sum(), (picked, out[name])

  gradients, (scores, features) = jax.grad(total, has_aux=True)(zeros)
  return weigh(features.astype(jnp.float32), gradients.astype(jnp.float32), method), scores


@functools.partial(
  jax.jit, static_argnames='model'
)  # for their shapes: traced once for all methods and stages
def _intermediates(model, variables, images):
  return model.apply(variables, images, train=False)[1]


def weigh(features, gradients, method):
  """Features and gradients (b, h, w, c) -> maps (b, h, w); of clips (b, t, h, w, c) -> (b, t, h, w)."""
  positions = tuple(range(1, features.ndim - 1))
  if method == 'hirescam':
    weights = gradients
  elif method == 'grad_cam':
    weights = gradients.mean(positions, keepdims=True)
  else:
    squares = gradients**2
    below = 2 * squares + features.sum(positions, keepdims=True) * gradients**3
    shares = jnp.where(below == 0, 0.0, squares / jnp.where(below == 0, 1.0, below))
    weights = (shares * jax.nn.relu(gradients)).sum(positions, keepdims=True)
  terms = weights * features
  total = terms.sum(-1)
  return jnp.where(total > CANCELLED * jnp.abs(terms).sum(-1), total, 0.0)


def check(stage, method, stages):
  """Raises ValueError for an unknown method, or a stage beyond the number of stages."""
  if stage not in range(stages + 1):
    raise ValueError(f'grad_cam.stage is {stage!r}: it must be 1 to {stages}, or 0 for the last with a map')
  if method not in METHODS:
    raise ValueError(f'grad_cam.method is {method!r}: it must be one of {", ".join(METHODS)}')


def last_stage_with_a_map(run, side):
  """The last stage whose map of images of `side` pixels has LEAST positions a side; 1 where none has."""
  images = jax.ShapeDtypeStruct((1, *run.model.example_shape(side)), jnp.float32)
  _, out = jax.eval_shape(run.apply, run.variables, images)
  maps = {int(name.removeprefix('stage')): value for name, value in out.items() if name.startswith('stage')}
  stages = [stage for stage, value in maps.items() if min(value.shape[-3:-1]) >= LEAST]
  return max(stages, default=1)


def normalised(maps):
  """Each map of (k, h, w) or (k, t, h, w) over its largest value, in 0..1; a map of zeros stays one."""
  maps = np.asarray(maps, np.float32)
  largest = maps.max(tuple(range(1, maps.ndim)), keepdims=True)
  return np.where(largest > 0, maps / np.where(largest > 0, largest, 1), 0)


def state(a_map):
  """What is to be said about a map (h, w): 'zero', 'constant', or '' for one that says something."""
  a_map = np.asarray(a_map)
  if not (a_map > 0).any():
    return 'zero'
  return 'constant' if np.ptp(a_map) <= 1e-6 * a_map.max() else ''


def upsample(maps, side, stride, first=None):
  """Maps (..., h, w) -> (..., side, side), bilinear between pixel centres, the edge's value beyond them.

  Position p of a map has its centre at p * stride + first in the image's pixels, by default that of patches
  of `stride` pixels. The stride is the network's, not side / h: where it does not divide the side, the
  network leaves a remainder out.
  """
  maps = np.asarray(maps, np.float32)
  first = (stride - 1) / 2 if first is None else first
  centres = (np.arange(side) - first) / stride

  def weights(size):  # (side, size); the rows sum to 1
    places = np.clip(centres, 0, size - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(size)[None])).astype(np.float32)

  *_, h, w = maps.shape
  return np.einsum('ph,...hw,qw->...pq', weights(h), maps, weights(w))
