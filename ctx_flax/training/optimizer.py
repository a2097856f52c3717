"""AdamW with the recipe's schedule and its set of parameters without weight decay."""

import jax
import jax.numpy as jnp
import optax

# By name, beside everything of one dimension or none: the table of class embeddings and the logarithm of
# the scores' scale (the paper trains both without weight decay), and biases of any shape.
NO_DECAY = ('bias', 'class_embedding', 'logit_scale')


def total_steps(config, steps_per_epoch):
  """The optimizer steps of a whole run: `config.train.steps`, or derived from the epochs where that is 0."""
  if config.train.steps:
    return int(config.train.steps)
  return round(config.train.epochs * steps_per_epoch)


def learning_rate_schedule(config, steps_per_epoch):
  """Linear warm-up, then a cosine over all steps of the run (the paper, supplementary Table 2).

  The warm-up goes from `warmup_start` to `learning_rate`. The cosine is counted from step 0, warm-up
  included, so that after the warm-up the rate joins the cosine at that step's value, a little below
  `learning_rate`, as in the released code. It ends at `floor` and stays there.

  Args:
    config: uses optimizer.{learning_rate, warmup_epochs, warmup_start, floor} and train.{steps, epochs};
      the rates are taken as they stand, for the run's own batch size.
    steps_per_epoch: optimizer steps in one pass over the training images.

  Returns:
    A function from the step (0 for the first update; int or traced) to a float32 scalar.

  Raises:
    ValueError: where the run has no steps, or a rate or the warm-up is negative.
  """
  settings = config.optimizer
  base, start, floor = settings.learning_rate, settings.warmup_start, settings.floor
  total = total_steps(config, steps_per_epoch)
  warmup = round(settings.warmup_epochs * steps_per_epoch)
  if total < 1:
    raise ValueError(
      f'a run needs at least one step: train.steps={config.train.steps}, '
      f'train.epochs={config.train.epochs} at {steps_per_epoch} steps per epoch make {total}'
    )
  for name in ('learning_rate', 'warmup_epochs', 'warmup_start', 'floor'):
    if getattr(settings, name) < 0:
      raise ValueError(f'optimizer.{name} must be 0 or more, but is {getattr(settings, name)}')

  def schedule(step):
    step = jnp.asarray(step, jnp.float32)
    rising = start + (base - start) * step / max(warmup, 1)
    falling = floor + 0.5 * (base - floor) * (1 + jnp.cos(jnp.pi * jnp.minimum(step / total, 1.0)))
    return jnp.where(step < warmup, rising, falling)

  return schedule


def decay_mask(params):
  """True for the parameters that take weight decay: two dimensions or more and not named in NO_DECAY."""

  def decays(path, leaf):
    return jnp.ndim(leaf) > 1 and path[-1].key not in NO_DECAY

  return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(config, schedule):
  """AdamW: weight decay decoupled and times the rate; clipping by the global norm where `clip_norm` > 0.

  Args:
    config: uses optimizer.{beta1, beta2, eps, weight_decay, clip_norm}; clip_norm 0 is no clipping.
    schedule: what `learning_rate_schedule` returns.

  Returns:
    An optax.GradientTransformation. It expects gradients that are already summed over the devices: the
    norm that is clipped is that of the whole batch's gradient.

  Raises:
    ValueError: where weight_decay or clip_norm is negative.
  """
  settings = config.optimizer
  for name in ('weight_decay', 'clip_norm'):
    if getattr(settings, name) < 0:
      raise ValueError(f'optimizer.{name} must be 0 (off) or more, but is {getattr(settings, name)}')
  adamw = optax.adamw(
    schedule,
    b1=settings.beta1,
    b2=settings.beta2,
    eps=settings.eps,
    weight_decay=settings.weight_decay,
    mask=decay_mask,
  )
  if settings.clip_norm:
    return optax.chain(optax.clip_by_global_norm(settings.clip_norm), adamw)
  return adamw
