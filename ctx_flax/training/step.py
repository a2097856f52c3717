"""One training step and one evaluation step, as pure functions that know the devices only as axis 'batch'.

Run them through training/parallel.py. Nothing in them waits for the host, and a model's intermediates
never leave them.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from ctx_flax.layers.contextualizer import default_class_counts
from ctx_flax.models.inference import apply_in_turn
from ctx_flax.training import losses, metrics

AXIS = 'batch'
ON_NAN = 'stop', 'skip'
NORMALISE = 'counted', 'batch'


class TrainState(struct.PyTreeNode):
  """All that changes in training. Random keys are not in it: they come from the seed and `step`."""

  step: jax.Array  # int32 scalar: optimizer steps taken
  params: Any
  batch_stats: Any  # {} where the model has no BatchNorm
  opt_state: Any
  ema: Any  # averaged {'params', 'batch_stats'?}; {} where it is off

  @property
  def variables(self):
    """What `model.apply` and the evaluation step take; `ema` has the same structure."""
    return _variables(self.params, self.batch_stats)


def _variables(params, batch_stats):
  return {'params': params, 'batch_stats': batch_stats} if batch_stats else {'params': params}


def create_state(model, tx, rng, image_shape, ema):
  """Initialises a model and its optimizer.

  Args:
    model: a network of ctx_flax.models.
    tx: the optimizer, an optax.GradientTransformation.
    rng: a PRNG key.
    image_shape: (h, w, c) of one image.
    ema: whether to keep averaged variables; they start as the initial ones.

  Returns:
    A TrainState on the default device.
  """
  variables = jax.jit(lambda key: model.init(key, jnp.zeros((1, *image_shape)), train=False))(rng)
  params, batch_stats = variables['params'], variables.get('batch_stats', {})
  # Copies in float32: the step gives its input's memory to its output, where no two leaves may share it, and
  # a decay of 0.9999 needs more digits than bfloat16 has.
  averaged = jax.tree.map(
    lambda x: jnp.array(x, jnp.promote_types(x.dtype, jnp.float32)), _variables(params, batch_stats)
  )
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=batch_stats,
    opt_state=tx.init(params),
    ema=averaged if ema else {},
  )


def _check_batch(batch):
  missing = {'image', 'label', 'weight'} - set(batch)
  if missing:
    raise ValueError(
      f'a batch needs image, label and weight, but {sorted(missing)} is missing: {sorted(batch)}'
    )


def check_settings(config):
  """Raises ValueError for a field of the training step that has no meaning."""
  if config.train.accumulation < 1:
    raise ValueError(f'train.accumulation must be 1 (off) or more, but is {config.train.accumulation}')
  if not 0 <= config.train.class_counts_warmup <= 1:
    raise ValueError(
      'train.class_counts_warmup must be a fraction of the run, 0 to 1, but is '
      f'{config.train.class_counts_warmup}'
    )
  for name, value, known in (
    ('train.on_nan', config.train.on_nan, ON_NAN),
    ('loss.normalise', config.loss.normalise, NORMALISE),
  ):
    if value not in known:
      raise ValueError(f'{name} must be one of {known}, but is {value!r}')


def class_counts_at(step, total_steps, fraction, num_classes, class_counts):
  """The numbers of considered classes of an update while they shrink (ours; the paper keeps them fixed).

  Linear in the step from num_classes at step 0 to class_counts at fraction * total_steps, rounded, and
  class_counts from there on. A network whose early stages cannot tell the classes apart yet would drop nearly
  every label at the first selection and leave the later stages nothing to learn from.

  Args:
    step: of the update, from 0; may be traced.
    total_steps: of the run.
    fraction: of the run, above 0.
    num_classes: n.
    class_counts: N_2, N_3, N_4.

  Returns:
    int32 (3,).
  """
  progress = jnp.minimum(step / (fraction * total_steps), 1.0)
  final = jnp.asarray(class_counts, jnp.float32)
  return jnp.round(num_classes + (final - num_classes) * progress).astype(jnp.int32)


def make_train_step(model, tx, config, total_steps=0, freeze_norm=False):
  """The function (state, batch) -> (state, metrics) of one optimizer step.

  A device's loss is its own sums over the counts of all devices, so that the devices' losses and gradients
  add up to those of the whole batch, also where stages count different numbers of images per device.

  With train.accumulation = k a device computes its rows in k parts, one after the other, whose gradients add
  up to the same as well. Where the counts depend on the network ('reduction' with loss.normalise =
  'counted'), a forward pass over all parts comes first to count: about a third more work. BatchNorm takes its
  statistics over one part on all devices, and its running ones are updated k times.

  Args:
    model: a network of ctx_flax.models. BatchNorm takes its statistics over all devices, whatever the
      model's axis_name.
    tx: the optimizer, an optax.GradientTransformation.
    config: uses seed, loss.{alpha, label_smoothing, normalise} and train.{ema_decay (0: off), accumulation,
      on_nan, class_counts_warmup}.
    total_steps: of the run; only class_counts_warmup needs it.
    freeze_norm: BatchNorm normalises with its running statistics, which stay as they are.

  Returns:
    A function of a TrainState, the same on every device, and a device's part of the batch: 'image'
    (b, h, w, c), 'label' int (b,), 'weight' (b,) 1 for images and 0 for filling rows, and for mixed images
    'other_label' and 'lam' (b,). It returns the next TrainState and the metrics {name: (sum, count)} of the
    whole batch before the update: loss1..loss4 and those of `stage_metrics`, taken against the heavier label
    of mixed images; class_count2..4 while they warm up; and where train.on_nan is 'skip', skipped: a step
    whose loss or gradient is not finite changes nothing but the number of the step and counts as (1, 1).

  Raises:
    ValueError: for class_counts_warmup without total_steps or with a plain network; when traced, for a batch
      without its arrays or that cannot be divided, or a state whose `ema` is kept where train.ema_decay is 0
      or is missing where it is not.
  """
  check_settings(config)
  selection = getattr(model, 'class_selection', 'rerank')
  decay, parts, warmup = config.train.ema_decay, config.train.accumulation, config.train.class_counts_warmup
  contextual = getattr(model, 'contextual', False)
  if warmup and not (contextual and total_steps):
    problem = 'the number of steps' if contextual else 'a contextual network'
    raise ValueError(f'train.class_counts_warmup={warmup} needs {problem}')
  norm = {'train_norm': False} if freeze_norm else {}
  # Whether a stage's count follows from the batch alone.
  known_counts = config.loss.normalise == 'batch' or selection == 'rerank' or not contextual
  if hasattr(model, 'axis_name'):
    # The state is one for all devices, so the statistics of BatchNorm must be those of the whole batch.
    model = model.clone(axis_name=AXIS)

  def forward(params, batch_stats, part, key, class_counts):
    """(out, updated batch statistics, {stage: (sum, count)}) of a part of a device's rows."""
    (_, out), updated = model.apply(
      _variables(params, batch_stats),
      part['image'],
      train=True,
      mutable=['batch_stats'],
      rngs={'drop_path': key},
      **class_counts,
      **norm,
    )
    stage_losses = losses.stage_losses(
      out,
      part['label'],
      selection=selection,
      label_smoothing=config.loss.label_smoothing,
      other_labels=part.get('other_label'),
      lam=part.get('lam'),
      weights=part['weight'],
    )
    if config.loss.normalise == 'batch':
      stage_losses = {s: (total, part['weight'].sum()) for s, (total, _) in stage_losses.items()}
    return out, updated.get('batch_stats', {}), stage_losses

  def part_gradients(params, batch_stats, part, key, class_counts, counts):
    """(gradients, batch statistics, metrics) of a part; without `counts` those of this part."""

    def loss_function(params):
      out, updated, stage_losses = forward(params, batch_stats, part, key, class_counts)
      total = counts
      if total is None:
        total = jax.lax.psum({s: count for s, (_, count) in stage_losses.items()}, AXIS)
      total = jax.lax.stop_gradient({s: total[s] for s in stage_losses})
      loss = losses.combine({s: value for s, (value, _) in stage_losses.items()}, total, config.loss.alpha)
      return loss, (updated, _local_metrics(out, stage_losses, part, selection))

    gradients, (updated, local) = jax.grad(loss_function, has_aux=True)(params)
    return gradients, updated, local

  def accumulated(params, batch_stats, batch, key, class_counts):
    """`part_gradients` of all rows, part by part."""
    split = _split(batch, parts)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(parts))
    if known_counts:
      images = jax.lax.psum(batch['weight'].astype(jnp.float32).sum(), AXIS)
      counts = dict.fromkeys((1, 2, 3, 4), images)
    else:

      def count(_, inputs):
        # With the keys of the gradients' pass: stochastic depth changes which labels are dropped.
        part, key = inputs
        _, _, stage_losses = forward(params, batch_stats, part, key, class_counts)
        return None, {s: count for s, (_, count) in stage_losses.items()}

      _, counted = jax.lax.scan(count, None, (split, keys))
      counts = jax.lax.psum(jax.tree.map(lambda x: x.sum(0), counted), AXIS)

    def add_part(carry, inputs):
      (gradients, batch_stats), (part, key) = carry, inputs
      more, batch_stats, local = part_gradients(params, batch_stats, part, key, class_counts, counts)
      return (jax.tree.map(jnp.add, gradients, more), batch_stats), local

    start = jax.tree.map(jnp.zeros_like, params), batch_stats
    (gradients, batch_stats), local = jax.lax.scan(add_part, start, (split, keys))
    return gradients, batch_stats, jax.tree.map(lambda x: x.sum(0), local)

  def train_step(state, batch):
    _check_batch(batch)
    if bool(decay) != bool(state.ema):
      raise ValueError(f'train.ema_decay={decay} does not fit a state created with ema={bool(state.ema)}')
    # A key of its own for every step and device, from the seed alone: a resumed run draws the same ones.
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
    class_counts = {}
    if warmup:
      final = model.class_counts or default_class_counts(model.num_classes)
      counts = class_counts_at(state.step, total_steps, warmup, model.num_classes, final)
      class_counts = {'class_counts': counts}

    compute = functools.partial(part_gradients, counts=None) if parts == 1 else accumulated
    gradients, batch_stats, local = compute(state.params, state.batch_stats, batch, key, class_counts)
    gradients, measured = jax.lax.psum((gradients, local), AXIS)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if decay:
      ema = jax.tree.map(
        lambda average, new: decay * average + (1 - decay) * new.astype(average.dtype),
        ema,
        _variables(params, batch_stats),
      )
    new = TrainState(state.step + 1, params, batch_stats, opt_state, ema)
    if warmup:
      measured |= {f'class_count{s}': (counts[s - 2].astype(jnp.float32), 1.0) for s in (2, 3, 4)}
    if config.train.on_nan == 'skip':
      new, measured = _skip_unless_finite(state, new, gradients, measured)
    return new, measured

  return train_step


def _split(batch, parts):
  """(b, ...) -> (parts, b / parts, ...) of every array."""
  rows = len(batch['label'])
  if rows % parts:
    raise ValueError(f'the {rows} images of a device cannot be divided by train.accumulation={parts}')
  return {name: value.reshape(parts, rows // parts, *value.shape[1:]) for name, value in batch.items()}


def _skip_unless_finite(old, new, gradients, measured):
  """(new, measured) where gradients and losses are finite, else (old but for its steps, all zero)."""
  sums = [total for name, (total, _) in measured.items() if name.startswith('loss')]
  finite = jnp.stack([jnp.isfinite(x).all() for x in [*jax.tree.leaves(gradients), *sums]]).all()
  # The schedule goes on: its rate is that of the step, whichever were skipped.
  schedule = optax.ScaleByScheduleState
  opt_state = jax.tree.map(
    lambda a, b: b if isinstance(b, schedule) else a,
    old.opt_state,
    new.opt_state,
    is_leaf=lambda x: isinstance(x, schedule),
  )
  unchanged = old.replace(step=new.step, opt_state=opt_state)
  kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, unchanged)
  measured = jax.tree.map(lambda x: jnp.where(finite, x, jnp.zeros_like(x)), measured)
  return kept, measured | {'skipped': (1.0 - finite, jnp.ones(()))}


def make_eval_step(model):
  """The function (variables, batch) -> metrics of one batch; rows of weight 0 count as absent.

  The metrics are those of the training step, with hard labels and no label smoothing.
  """
  selection = getattr(model, 'class_selection', 'rerank')

  def eval_step(variables, batch):
    _check_batch(batch)
    _, out = apply_in_turn(model, variables, batch['image'])
    stage_losses = losses.stage_losses(out, batch['label'], selection=selection, weights=batch['weight'])
    return jax.lax.psum(_local_metrics(out, stage_losses, batch, selection), AXIS)

  return eval_step


def _local_metrics(out, stage_losses, batch, selection):
  labels = batch['label']
  if 'lam' in batch:
    labels, _, _ = losses.heavier_first(labels, batch['other_label'], batch['lam'])
  named = {f'loss{s}': value for s, value in stage_losses.items()}
  return named | metrics.stage_metrics(out, labels, selection, batch['weight'])
