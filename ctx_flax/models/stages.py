"""What both families share: named intermediates, and the class selection between stages."""

import jax.numpy as jnp

from ctx_flax.layers.contextualizer import Contextualizer, default_class_counts


class Intermediates(dict):
  """The `out` of a model: name -> array, in the order in which the network computes them.

  `add` maps names to arrays that are added as the intermediates are recorded; the gradient with respect
  to a zero that was added is the gradient with respect to the intermediate (Grad-CAM without hooks).
  """

  def __init__(self, add=None):
    super().__init__()
    self._add = dict(add or {})

  def record(self, name, value):
    """Stores value, plus what the caller adds to it, under name and returns it."""
    if name in self._add:
      extra = self._add.pop(name)
      if jnp.shape(extra) != value.shape:
        raise ValueError(f'add[{name!r}] has shape {jnp.shape(extra)}; expected {value.shape}')
      value = value + extra
    self[name] = value
    return value

  def record_adaptation(self, block, adaptation):
    """Stores how a contextual block adapted under offsets, mask and kernel_delta, keyed 'stage.block'."""
    for name, value in (adaptation or {}).items():
      self.setdefault(name, {})[block] = value

  def finish(self):
    """A plain dict; ValueError when `add` names something that the network does not compute."""
    if self._add:
      known = [name for name, value in self.items() if not isinstance(value, dict)]
      raise ValueError(f'add names {sorted(self._add)}, which the model does not compute; it has {known}')
    return dict(self)


def contextualizer_of(network, **family):
  """The contextualizing layers of a network; `family` holds what its family does differently.

  A context has the width of the stage before; an image head has that of its own stage.
  """
  return Contextualizer(
    network.num_classes,
    network.class_counts or default_class_counts(network.num_classes),
    head_dims=network.dims,
    context_dims=network.dims[:-1],
    embed_dim=network.embed_dim,
    selection=network.class_selection,
    logit_scale_init=network.logit_scale_init,
    param_dtype=network.param_dtype,
    name='contextualizer',
    **family,
  )


def class_tables(network, variables):
  """What the class selection computes from parameters alone, as a collection of variables.

  model.apply({**variables, **model.class_tables(variables)}, images) gives the same and computes it only
  once, which is worth it with many classes. Wrong as soon as the parameters change.

  Returns:
    {'class_tables': ...}; {} for a plain network.
  """
  if not network.contextual:
    return {}
  contextualizer = contextualizer_of(network, parent=None)
  params = {'params': variables['params']['contextualizer']}
  return {'class_tables': {'contextualizer': contextualizer.apply(params, method='tables')}}


def score_stage(contextualizer, pooled, stage, considered, out, *, train):
  """Records scores, logits (-inf for classes that are out) and considered classes of a stage.

  Returns:
    (scores, logits), both (b, n).
  """
  out.record(f'considered{stage}', considered)
  scores = out.record(f'scores{stage}', contextualizer.score(pooled, stage, train=train))
  alive = considered if contextualizer.selection == 'reduction' else jnp.ones_like(considered)
  out[f'alive{stage}'] = alive
  logits = scores
  if contextualizer.selection == 'reduction':
    logits = jnp.where(considered, scores, -jnp.inf)
  return scores, out.record(f'logits{stage}', logits)


def next_context(contextualizer, scores, stage, considered, out, class_counts=None):
  """Selects the classes of stage + 1 and merges them: (considered (b, n), context (b, e))."""
  count = None if class_counts is None else class_counts[stage - 1]
  considered = contextualizer.select(scores, considered, stage, count)
  return considered, out.record(f'context{stage + 1}', contextualizer.context(considered, stage + 1))


def check_images(images, smallest):
  """ValueError unless images are (b, h, w, c) with sides of at least `smallest` pixels."""
  if jnp.ndim(images) != 4:
    raise ValueError(f'images have shape {jnp.shape(images)}; expected (b, h, w, c)')
  if min(images.shape[1:3]) < smallest:
    raise ValueError(
      f'images have {images.shape[1]} x {images.shape[2]} pixels; this network needs at least '
      f'{smallest} x {smallest}, so that its last stage has a pixel left'
    )
