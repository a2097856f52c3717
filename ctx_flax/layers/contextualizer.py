"""Which classes are still likely, and the context vector that says so to the next stage.

Axes: b images, n classes, e embedding. All in float32, whatever the compute dtype: it is little work,
and it decides which classes survive.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from ctx_flax.layers.best_classes import best_classes
from ctx_flax.layers.linear import Linear, normal_002
from ctx_flax.layers.normalization import LayerNorm, normalise
from ctx_flax.layers.pooling import global_average_pool

SELECTIONS = 'reduction', 'rerank'


class Contextualizer(nn.Module):
  """The contextualizing layers of a network: one instance holds the class embeddings and all stages' parts.

  After stage s an image head turns the pooled features into an embedding u, and every class n is scored
  by exp(tau) * cos(u, E_n). The best class_counts[s - 1] classes are kept and their embeddings
  merged into the context of stage s + 1. Classes stay in their natural order; a boolean mask says which
  are kept.

  Attributes:
    num_classes: n.
    class_counts: how many classes are considered at stages 2, 3, ...; not increasing.
    head_dims: hidden size of every stage's image head, stage 1 first.
    context_dims: size of the context of stages 2, 3, ...
    embed_dim: e.
    selection: 'reduction' chooses among the classes that are still considered (the paper); 'rerank'
      chooses among all classes at every stage (the released code).
    norm: constructor of the image heads' norms, called as
      norm(epsilon=1e-5, param_dtype=..., name=...)(x, train=train): LayerNorm, or
      functools.partial(BatchNorm, axis_name=...); Flax's nn.LayerNorm and nn.BatchNorm do too. The mergers
      have LayerNorm in any case.
    linear_init: 'normal' (ConvNeXt) or 'uniform' (ResNet), see Linear.
    logit_scale_init: initial exp(tau).
    merge_contrast: merges what sets the considered classes apart, the mean over them less the mean over all.
      Ours, not the paper's, whose mean over hundreds of classes is nearly the same for every image.

  Source: the paper, section 3, and the authors' released code.
  """

  num_classes: int
  class_counts: tuple[int, ...]
  head_dims: tuple[int, ...]
  context_dims: tuple[int, ...]
  embed_dim: int = 256
  selection: str = 'reduction'
  norm: Callable[..., Any] = LayerNorm
  linear_init: str = 'normal'
  logit_scale_init: float = 1 / 0.07
  merge_contrast: bool = False
  param_dtype: Any = jnp.float32

  def setup(self) -> None:
    check_class_counts(self.class_counts, self.num_classes)
    if self.selection not in SELECTIONS:
      raise ValueError(f'selection={self.selection!r}: expected one of {SELECTIONS}')
    if not len(self.class_counts) == len(self.context_dims) == len(self.head_dims) - 1:
      raise ValueError(
        f'class_counts={self.class_counts}, context_dims={self.context_dims} and head_dims={self.head_dims}: '
        'expected one head per stage, and one count and one context per stage but the first'
      )
    shape = self.num_classes, self.embed_dim
    self.class_embedding = self.param('class_embedding', normal_002, shape, self.param_dtype)
    tau = initializers.constant(math.log(self.logit_scale_init))
    self.logit_scale = self.param('logit_scale', tau, (), self.param_dtype)
    self.heads = [
      ImageHead(dim, self.embed_dim, self.norm, self.linear_init, self.param_dtype, name=f'head{stage}')
      for stage, dim in enumerate(self.head_dims, 1)
    ]
    self.mergers = [
      ClassMerger(
        dim,
        max(self.embed_dim // 4, 128),
        self.linear_init,
        self.merge_contrast,
        self.param_dtype,
        name=f'merger{stage}',
      )
      for stage, dim in enumerate(self.context_dims, 2)
    ]

  def score(self, x: jax.Array, stage: int, *, train: bool = False) -> jax.Array:
    """Scores of all classes: (b, h, w, c) or pooled (b, c) -> (b, n) float32, finite for every class."""
    if x.ndim == 4:
      x = global_average_pool(x)
    u = self.heads[stage - 1](x.astype(jnp.float32), train=train)
    classes = self._table('classes', lambda: _unit(self.class_embedding))
    return jnp.exp(self.logit_scale) * (_unit(u) @ classes.T)

  def select(
    self, scores: jax.Array, considered: jax.Array, stage: int, count: int | jax.Array | None = None
  ) -> jax.Array:
    """Keeps the best classes for stage + 1: scores (b, n), considered (b, n) bool -> (b, n) bool.

    Exactly `count` of them, by default class_counts[stage - 1], equal scores by index. No gradient passes.
    A traced count lets the number change while training without compiling anew.
    """
    scores = jax.lax.stop_gradient(scores)
    if self.selection == 'reduction':
      scores = jnp.where(considered, scores, -jnp.inf)
    return best_classes(scores, self.class_counts[stage - 1] if count is None else count)

  def context(self, considered: jax.Array, stage: int) -> jax.Array:
    """The context vectors (b, context_dims[stage - 2]) that merge the considered classes (b, n)."""
    merger = self.mergers[stage - 2]
    return merger(self._table(f'context{stage}', lambda: merger.table(self.class_embedding)), considered)

  def tables(self) -> dict[str, jax.Array]:
    """What depends on parameters alone, {name: array with a row per class}: given back in the variable
    collection 'class_tables', it is not computed again."""
    stages = range(2, 2 + len(self.mergers))
    merged = {f'context{s}': self.mergers[s - 2].table(self.class_embedding) for s in stages}
    return {'classes': _unit(self.class_embedding)} | merged

  def _table(self, name: str, compute: Callable[[], jax.Array]) -> jax.Array:
    if self.has_variable('class_tables', name):
      return self.get_variable('class_tables', name)
    return compute()

  def __call__(
    self, features: Sequence[jax.Array], *, train: bool = False
  ) -> tuple[jax.Array, list[jax.Array]]:
    """Runs all stages on a list of features; what init calls to create every parameter."""
    considered = jnp.ones((features[0].shape[0], self.num_classes), bool)
    contexts = []
    for stage, x in enumerate(features, 1):
      scores = self.score(x, stage, train=train)
      if stage < len(self.head_dims):
        considered = self.select(scores, considered, stage)
        contexts.append(self.context(considered, stage + 1))
    return scores, contexts


class ImageHead(nn.Module):
  """Pooled features (b, c) -> embedding (b, e): linear, norm, ReLU, linear."""

  hidden_dim: int
  embed_dim: int
  norm: Callable[..., Any]
  linear_init: str
  param_dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    x = Linear(self.hidden_dim, self.linear_init, param_dtype=self.param_dtype, name='proj')(x)
    norm = self.norm(epsilon=1e-5, param_dtype=self.param_dtype, name='norm')
    x = nn.relu(normalise(norm, x, train=train))
    return Linear(self.embed_dim, self.linear_init, param_dtype=self.param_dtype, name='out')(x)


class ClassMerger(nn.Module):
  """The table of all classes (n, inner_dim) and the considered ones (b, n) -> context (b, context_dim).

  The inner layer acts on every class embedding alone, so it runs once on all of them, and the mean over an
  image's classes is one product with the mask: no (b, n, e) array.
  """

  context_dim: int
  inner_dim: int
  linear_init: str
  contrast: bool
  param_dtype: Any

  def setup(self) -> None:
    self.inner = Linear(self.inner_dim, self.linear_init, param_dtype=self.param_dtype)
    self.inner_norm = LayerNorm(1e-5, param_dtype=self.param_dtype)
    self.outer = Linear(self.context_dim, self.linear_init, param_dtype=self.param_dtype)
    self.outer_norm = LayerNorm(1e-5, param_dtype=self.param_dtype)

  def table(self, class_embedding: jax.Array) -> jax.Array:
    """(n, e) -> (n, inner_dim)."""
    table = nn.relu(self.inner_norm(self.inner(class_embedding)))
    # The mean over the considered rows of what is left is their mean less that of all.
    return table - table.mean(0, keepdims=True) if self.contrast else table

  def __call__(self, table: jax.Array, considered: jax.Array) -> jax.Array:
    kept = considered.astype(table.dtype)
    merged = kept @ table / jnp.sum(kept, -1, keepdims=True)
    return nn.relu(self.outer_norm(self.outer(merged)))


def default_class_counts(num_classes: int, stages: int = 4) -> tuple[int, ...]:
  """500, 200, 50 of 1000 classes for stages 2, 3, 4, scaled; at least min(num_classes, 5): top-5 needs five.

  Networks of fewer stages leave out the last counts, those of more repeat the last.
  """
  shares = [(0.5, 0.2, 0.05)[min(i, 2)] for i in range(stages - 1)]
  return tuple(max(int(num_classes * share + 0.5), min(num_classes, 5)) for share in shares)


def check_class_counts(class_counts: Sequence[int], num_classes: int) -> None:
  """ValueError unless num_classes >= N_2 >= N_3 >= ... >= 2."""
  counts = (num_classes, *class_counts)
  if any(later > earlier for earlier, later in itertools.pairwise(counts)) or min(counts) < 2:
    raise ValueError(
      f'class_counts={tuple(class_counts)}: expected {num_classes} (num_classes) >= N_2 >= N_3 >= ... >= 2; '
      'every stage considers a part of the classes of the one before'
    )


def _unit(x: jax.Array) -> jax.Array:
  # Not x / maximum(norm, eps): the gradient of a norm at zero is NaN.
  return x * jax.lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-12)
