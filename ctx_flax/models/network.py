"""What all families of networks share, and what a family says of itself."""

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_flax.layers.ablations import ADAPTATIONS
from ctx_flax.layers.contextualizer import SELECTIONS, Contextualizer, default_class_counts
from ctx_flax.models.attributes import check_attributes, check_images
from ctx_flax.models.class_funnel import ClassFunnel
from ctx_flax.models.class_tables import class_tables, contexts
from ctx_flax.models.intermediates import stages_of
from ctx_flax.models.limits import ABOVE_0, Limit, at_least

__all__ = ['Network', 'stages_of']


class Network(nn.Module):
  """A network of stages, plain or contextual: the base of all families.

  A family defines `__call__`, what stands under "What a family says of itself", and the methods that raise
  NotImplementedError here. Blocks are called stage1_block0 and so on, the contextualizing layers
  contextualizer. An entry in ctx_flax.models.MODELS makes it a network of create_model, one in
  ctx_flax.torch_weights.names.SOURCES reads its PyTorch weights.

  Attributes:
    num_classes: n.
    depths, dims: blocks and channels (or widths) of the stages.
    contextual: whether stages from the second on have contextual blocks and class embeddings classify.
    embed_dim: size of a class embedding.
    class_counts: classes considered at stages 2, 3, ...; () scales the paper's 500, 200, 50 of 1000.
    class_selection: 'reduction' (the paper) or 'rerank' (the released code).
    contextual_every: every which block of a stage, from the first on, is contextual; 0 is the family's own.
    mask_gain: the sampling mask is mask_gain * sigmoid.
    ablate: what contextual convolutions leave out, names of ctx_flax.layers.ablations.ABLATIONS (ours:
      the paper leaves nothing out). Without the first three blocks are plain, but class embeddings classify.
    branch_dim: hidden size of the contextual branches; 0 derives it from the channels.
    logit_scale_init: initial exp(tau).
    merge_contrast: contexts are made of what sets the considered classes apart from all, see Contextualizer.
    axis_name: pmapped axis over which BatchNorm averages its statistics; None: per device.
    remat: computes blocks again in the backward pass instead of keeping their activations.
    segments: t, the frames of a clip; 1 is for images. Families that `take_clips` alone have more.
    dtype, param_dtype: of the computation, None for that of images and parameters, and of the parameters.
  """

  num_classes: int = 1000
  depths: tuple[int, ...] = ()
  dims: tuple[int, ...] = ()
  contextual: bool = False
  embed_dim: int = 256
  class_counts: tuple[int, ...] = ()
  class_selection: str = 'reduction'
  contextual_every: int = 0
  mask_gain: float = 1.0
  ablate: tuple[str, ...] = ()
  branch_dim: int = 0
  logit_scale_init: float = 1 / 0.07
  merge_contrast: bool = False
  axis_name: Hashable | None = None
  remat: bool = False
  segments: int = 1
  dtype: Any = None
  param_dtype: Any = jnp.float32

  # What a family says of itself.

  # The contextual_every that 0 stands for.
  default_contextual_every: ClassVar[int]
  # The convolution of a block that is contextual in contextual blocks.
  contextual_conv: ClassVar[str]
  # The parameters of the plain class head, in order; its last module has one output per class.
  class_head: ClassVar[tuple[str, ...]]
  # Whether segments may be more than 1.
  take_clips: ClassVar[bool] = False
  # Whether a detector normalises the map of each stage before it reads it.
  output_norms: ClassVar[bool] = False
  # A regex of the parameters that training a detector leaves as they are; '' for none.
  fixed_in_detectors: ClassVar[str] = ''
  # Attributes that have no meaning in a plain network.
  contextual_options: ClassVar[tuple[str, ...]] = (
    'embed_dim',
    'class_counts',
    'class_selection',
    'contextual_every',
    'mask_gain',
    'ablate',
    'branch_dim',
    'logit_scale_init',
    'merge_contrast',
  )
  # What the numbers among the attributes may be.
  limits: ClassVar[Mapping[str, Limit]] = {
    'num_classes': at_least(2),
    'embed_dim': at_least(1),
    'contextual_every': at_least(0),
    'branch_dim': at_least(0),
    'mask_gain': ABOVE_0,
    'logit_scale_init': ABOVE_0,
    'segments': at_least(1),
  }
  # The names that attributes may be.
  choices: ClassVar[Mapping[str, tuple[str, ...]]] = {'class_selection': SELECTIONS}

  @property
  def strides(self) -> tuple[int, ...]:
    """Image pixels per position of each stage's map."""
    raise NotImplementedError

  @property
  def adapts(self) -> bool:
    """Whether it has contextual blocks; one in which these are ablated may still exclude classes."""
    return self.contextual and not set(ADAPTATIONS) <= set(self.ablate)

  @property
  def smallest_side(self) -> int:
    """Pixels that the sides of an image must have at least."""
    return self.strides[-1]

  @nn.nowrap
  def first_centre(self, scale: float) -> float:
    """Where, in image pixels, position 0 of a map that is `scale` times coarser than the image is centred."""
    raise NotImplementedError

  @nn.nowrap
  def halves(self, stage: int, block: int) -> bool:
    """Whether a block (stages count from 1, blocks from 0) reads a map of twice the side of what it makes."""
    return False

  @nn.nowrap
  def contextualizer_options(self) -> dict[str, Any]:
    """Attributes of the Contextualizer that differ from its defaults in this family."""
    return {}

  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    train_norm: bool | None = None,
    add: Mapping[str, jax.Array] | None = None,
    replace: Mapping[str, jax.Array] | None = None,
    features_only: bool = False,
    valid_hw: jax.Array | None = None,
    padded_hw: jax.Array | None = None,
    class_counts: jax.Array | None = None,
  ) -> tuple[jax.Array | None, dict[str, Any]]:
    """Classifies images, or clips where segments is above 1.

    Args:
      images: (b, h, w, 3), or (b, t, h, w, 3) with t = segments; normalised, sides at least `smallest_side`.
      train: enables stochastic depth (RNG stream 'drop_path') and dropout ('dropout'); BatchNorm uses and
        updates batch statistics (apply with mutable=['batch_stats']).
      train_norm: overrides train for BatchNorm; False freezes its statistics.
      add, replace: arrays added to named intermediates, or put in their place, see Intermediates.
      features_only: stops before the last stage's head; logits are None.
      valid_hw: (b, 2) int, the size of each image if smaller ones are padded at the bottom and right; the
        padding then changes neither features inside the image nor contexts (with BatchNorm's running
        statistics; batch statistics are taken over all pixels).
      padded_hw: (b, 2) int, the sizes up to which convolutions see an image and padding of its own, which a
        detector's training makes a multiple of `strides[-1]`; contexts are of `valid_hw` alone. Each of the
        two is by default the other.
      class_counts: int (stages - 1,), traced or not, instead of the attribute: numbers that change while
        training.

    Returns:
      logits: (b, n) float32 in natural class order, -inf for excluded classes.
      out: the named intermediates: 'stage1'..'stage4', 'pre_logits' (pooled stage 4); 'scores4', 'logits4',
        'considered4' and 'alive4' (see ClassFunnel) and, if contextual, the same four of stages 1-3,
        'context2'..'context4', and of contextual blocks 'offsets', 'mask', 'kernel_delta' as dicts keyed
        'stage.block'. Of clips, 'stage1'..'stage4', 'pre_logits' and these three are (b, t, ...).

    Raises:
      ValueError: images of a wrong shape or too small.
    """
    raise NotImplementedError

  @nn.nowrap
  def is_contextual(self, stage: int, block: int) -> bool:
    """Whether a block is contextual; stages count from 1, blocks from 0."""
    every = self.contextual_every or self.default_contextual_every
    return self.adapts and stage > 1 and block % every == 0

  @nn.nowrap
  def make_contextualizer(self, **keywords: Any) -> Contextualizer:
    """The contextualizing layers. A context has the width of the stage before, a head that of its own."""
    return Contextualizer(
      self.num_classes,
      self.class_counts or default_class_counts(self.num_classes, len(self.dims)),
      head_dims=self.dims,
      context_dims=self.dims[:-1],
      embed_dim=self.embed_dim,
      selection=self.class_selection,
      logit_scale_init=self.logit_scale_init,
      merge_contrast=self.merge_contrast,
      param_dtype=self.param_dtype,
      name='contextualizer',
      **self.contextualizer_options(),
      **keywords,
    )

  @nn.nowrap
  def class_funnel(self, batch_size: int, **keywords: Any) -> ClassFunnel:
    """The selection of classes between the stages, for one call; keywords are those of ClassFunnel."""
    contextualizer = self.make_contextualizer() if self.contextual else None
    return ClassFunnel(contextualizer, batch_size, **keywords)

  def class_tables(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What the class selection computes from parameters alone, as a collection of variables.

    model.apply({**variables, **model.class_tables(variables)}, images) gives the same and computes it only
    once, which is worth it with many classes. Wrong as soon as the parameters change.

    Returns:
      {'class_tables': ...}; {} for a plain network.
    """
    return class_tables(self.make_contextualizer(parent=None), variables) if self.contextual else {}

  def contexts(self, variables: Mapping[str, Any], considered: jax.Array, stage: int) -> jax.Array:
    """The contexts that sets of classes merge into, with the parameters of a contextual network.

    Args:
      variables: of the network, with or without its `class_tables`.
      considered: bool (b, n), the set of each image; at least one class.
      stage: 2, 3, ..., the one that reads the contexts.

    Returns:
      (b, e), what 'context{stage}' of `out` is for images that consider these classes.
    """
    return contexts(self.make_contextualizer(parent=None), variables, considered, stage)

  @nn.nowrap
  def check_images(self, images: jax.Array) -> None:
    """ValueError unless images are (b, h, w, c) with sides of `smallest_side` pixels or more, or clips."""
    check_images(self, images)

  @nn.nowrap
  def example_shape(self, side: int = 0) -> tuple[int, ...]:
    """Returns (h, w, 3), or (t, h, w, 3) in a network of clips, with sides of `side` or `smallest_side`."""
    side = side or self.smallest_side
    image = (side, side, 3)
    return image if self.segments == 1 else (self.segments, *image)

  @nn.nowrap
  def check_attributes(self) -> None:
    """ValueError, one line that names it, for an attribute that has no meaning."""
    check_attributes(self)
