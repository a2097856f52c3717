"""AdamW with the recipe's schedule, its set of parameters without weight decay, and groups of parameters."""

import re

import jax
import jax.numpy as jnp
import optax

# By name, beside everything of one dimension or none: the table of class embeddings and the logarithm of
# the scores' scale (the paper trains both without weight decay), and biases of any shape.
NO_DECAY = ('bias', 'class_embedding', 'logit_scale')
LISTED = 6  # names in an error message


def total_steps(config, steps_per_epoch):
  """The optimizer steps of a whole run: `config.train.steps`, or derived from the epochs where that is 0."""
  if config.train.steps:
    return int(config.train.steps)
  return round((config.train.epochs + config.optimizer.cooldown_epochs) * steps_per_epoch)


def peak_learning_rate(config):
  """The rate for the run's own batch size: linear in it (the paper's recipes name one batch size each)."""
  settings = config.optimizer
  if settings.reference_batch < 0:
    raise ValueError(
      f'optimizer.reference_batch must be 0 (off) or the batch that learning_rate is meant for, but is '
      f'{settings.reference_batch}'
    )
  scale = config.train.batch_size / settings.reference_batch if settings.reference_batch else 1.0
  return settings.learning_rate * scale


def warmup_steps(config, steps_per_epoch):
  """The optimizer steps of the linear warm-up."""
  return round(config.optimizer.warmup_epochs * steps_per_epoch)


def learning_rate_schedule(config, steps_per_epoch):
  """Linear warm-up, then a cosine over all steps of the run (the paper, supplementary Table 2).

  The warm-up goes from `warmup_start` to the peak, which is `learning_rate` scaled to the batch. The cosine
  is counted from step 0, warm-up included, so that after the warm-up the rate joins the cosine at that step's
  value, a little below the peak, as in the released code. It ends at `floor` and stays there for the
  cool-down. Neither `warmup_start` nor `floor` is scaled. A run that is shorter than its warm-up ends in it.

  Args:
    config: uses optimizer.{learning_rate, reference_batch, warmup_epochs, warmup_start, floor,
      cooldown_epochs, per_epoch} and train.{steps, epochs, batch_size}.
    steps_per_epoch: optimizer steps in one pass over the training images.

  Returns:
    A function from the step (0 for the first update; int or traced) to a float32 scalar.

  Raises:
    ValueError: where the run has no steps, or a rate or the warm-up is negative.
  """
  settings = config.optimizer
  total = total_steps(config, steps_per_epoch)
  warmup = warmup_steps(config, steps_per_epoch)
  if total < 1:
    raise ValueError(
      f'a run needs at least one step: train.steps={config.train.steps}, '
      f'train.epochs={config.train.epochs} at {steps_per_epoch} steps per epoch make {total}'
    )
  for name in ('learning_rate', 'warmup_epochs', 'warmup_start', 'floor', 'cooldown_epochs'):
    if getattr(settings, name) < 0:
      raise ValueError(f'optimizer.{name} must be 0 or more, but is {getattr(settings, name)}')
  peak, start, floor = peak_learning_rate(config), settings.warmup_start, settings.floor
  falling_steps = total - round(settings.cooldown_epochs * steps_per_epoch)
  if falling_steps < 1:
    raise ValueError(
      f'optimizer.cooldown_epochs={settings.cooldown_epochs} leaves none of the {total} steps of the run'
    )

  def schedule(step):
    step = jnp.asarray(step, jnp.float32)
    if settings.per_epoch:
      step = jnp.floor(jnp.floor(step / steps_per_epoch) * steps_per_epoch)
    rising = start + (peak - start) * step / max(warmup, 1)
    falling = floor + 0.5 * (peak - floor) * (1 + jnp.cos(jnp.pi * jnp.minimum(step / falling_steps, 1.0)))
    return jnp.where(step < warmup, rising, falling)

  return schedule


def decay_mask(params):
  """True for the parameters that take weight decay: two dimensions or more and not named in NO_DECAY."""

  def decays(path, leaf):
    return jnp.ndim(leaf) > 1 and path[-1].key not in NO_DECAY

  return jax.tree_util.tree_map_with_path(decays, params)


def group_factors(params, groups, factor=lambda name: 1.0):
  """The factors of every parameter: a tree of rates and one of decays, both of floats.

  Args:
    params: a tree of parameters, named like 'stage2_block0/dwconv/kernel'.
    groups: (regex, factor on the learning rate, factor on the weight decay), ...; the regex matches a whole
      name. () is one group of all.
    factor: name of a parameter -> what its rate is multiplied by, besides.

  Raises:
    ValueError: a parameter matches no group, or several; the message lists them.
  """
  groups = groups or (('.*', 1.0, 1.0),)
  names = jax.tree_util.tree_map_with_path(lambda path, _: '/'.join(key.key for key in path), params)
  matches = {
    name: [group for group in groups if re.fullmatch(group[0], name)] for name in jax.tree.leaves(names)
  }
  none = [name for name, found in matches.items() if not found]
  several = [
    f'{name} ({", ".join(repr(regex) for regex, _, _ in found)})'
    for name, found in matches.items()
    if len(found) > 1
  ]
  problems = [
    f'{what}: {", ".join(listed[:LISTED])}'
    + (f' and {len(listed) - LISTED} more' if len(listed) > LISTED else '')
    for what, listed in (('in no group', none), ('in several', several))
    if listed
  ]
  if problems:
    raise ValueError(f'optimizer.groups must match every parameter exactly once; {"; ".join(problems)}')
  rates = jax.tree.map(lambda name: float(matches[name][0][1]) * factor(name), names)
  decays = jax.tree.map(lambda name: float(matches[name][0][2]), names)
  return rates, decays


def make_optimizer(config, schedule, factor=lambda name: 1.0):
  """AdamW: weight decay decoupled and times the rate; clipping by the global norm where `clip_norm` > 0.

  Args:
    config: uses optimizer.{beta1, beta2, eps, weight_decay, clip_norm, groups}; clip_norm 0 is no clipping.
    schedule: what `learning_rate_schedule` returns, or a number.
    factor: name of a parameter -> another factor on its rate, beside that of its group; 0 freezes it.

  Returns:
    An optax.GradientTransformation. It expects gradients that are already summed over the devices: the
    norm that is clipped is that of the whole batch's gradient. Its `init` raises what `group_factors` does.

  Raises:
    ValueError: where weight_decay, clip_norm or a factor is negative, or a group is not what it must be.
  """
  settings = config.optimizer
  for name in ('weight_decay', 'clip_norm'):
    if getattr(settings, name) < 0:
      raise ValueError(f'optimizer.{name} must be 0 (off) or more, but is {getattr(settings, name)}')
  for group in settings.groups:
    _check_group(group)
  steps = [optax.clip_by_global_norm(settings.clip_norm)] if settings.clip_norm else []
  return optax.chain(
    *steps,
    optax.scale_by_adam(settings.beta1, settings.beta2, settings.eps),
    _decay_and_scale(settings.weight_decay, settings.groups, factor),
    optax.scale_by_learning_rate(schedule),
  )


def _decay_and_scale(weight_decay, groups, factor):
  """Adds weight_decay * factor * parameter where `decay_mask` says so, then multiplies by the rate factor."""

  def update(updates, state, params):
    rates, decays = group_factors(params, groups, factor)

    def change(update, parameter, rate, decay, masked):
      if not rate:
        return jnp.zeros_like(update)  # frozen, also where the gradient is not finite
      if masked and weight_decay and decay:
        update = update + weight_decay * decay * parameter
      return update if rate == 1 else rate * update

    return jax.tree.map(change, updates, params, rates, decays, decay_mask(params)), state

  def init(params):
    group_factors(params, groups)
    return optax.EmptyState()

  return optax.GradientTransformation(init, update)


def _check_group(group):
  try:
    regex, rate, decay = group
    re.compile(regex)
    if rate >= 0 and decay >= 0:
      return
  except (TypeError, ValueError, re.error):
    pass
  raise ValueError(
    f'optimizer.groups holds {group!r}: expected (regex, factor on the rate, factor on the decay), '
    'with factors of 0 or more'
  )


def advance_schedule(old, new):
  schedule = optax.ScaleByScheduleState
  return jax.tree.map(
    lambda a, b: b if isinstance(b, schedule) else a, old, new, is_leaf=lambda x: isinstance(x, schedule)
  )
