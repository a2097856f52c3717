"""How many classes each stage considers: while they shrink in training, and for another label set."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.layers.contextualizer import default_class_counts
from ctx_flax.models import is_contextual
from ctx_flax.training import restore, run_folder

FEWEST = 5  # scaling makes no stage consider fewer classes, unless it did before: top-5 needs five


def class_counts_at(
  step: Any, total_steps: int, fraction: float, num_classes: int, class_counts: tuple[int, ...]
) -> jax.Array:
  """The numbers of considered classes of an update while they shrink (ours; the paper keeps them fixed).

  Linear in the step from num_classes at step 0 to class_counts at fraction * total_steps, rounded, and
  class_counts from there on. A network whose early stages cannot tell the classes apart yet would drop nearly
  every label at the first selection and leave the later stages nothing to learn from.

  Args:
    step: of the update, from 0; may be traced.
    total_steps: of the run.
    fraction: of the run, above 0.
    num_classes: n.
    class_counts: N_2, N_3, ...

  Returns:
    int32 (len(class_counts),).
  """
  progress = jnp.minimum(step / (fraction * total_steps), 1.0)
  final = jnp.asarray(class_counts, jnp.float32)
  return jnp.round(num_classes + (final - num_classes) * progress).astype(jnp.int32)


def final_class_counts(model: Any) -> tuple[int, ...]:
  """N_2, N_3, ... of a contextual network."""
  return tuple(model.class_counts or default_class_counts(model.num_classes, len(model.dims)))


def with_class_counts(config: Any, workdir: Any, num_classes: int) -> Any:
  """The config with the class counts of init.weights, scaled to num_classes, if it leaves them open.

  Counts that were chosen for one label set are a share of it. A run that has begun keeps its own, even if the
  weights are gone.
  """
  if not config.init.weights or config.model.class_counts or not is_contextual(config.model.name):
    return config
  saved = run_folder.saved(workdir)
  if saved is not None and not restore.from_file(config, workdir):
    counts = saved['model']['class_counts']
  else:
    model = restore.read_weights(config.init.weights).about['model']
    before = model.get('num_classes') or num_classes
    counts = [
      min(max(int(count * num_classes / before + 0.5), min(count, FEWEST)), num_classes)
      for count in model.get('class_counts', ())
    ]
  if not counts:
    return config
  config = config.copy_and_resolve_references()
  config.model.class_counts = tuple(counts)
  return config


def milestones(config: Any, model: Any, last_step: int) -> tuple[set[int], Callable[[int], dict[str, Any]]]:
  """The step at which the counts stop shrinking, and the counts at a step, for --mode=check."""
  fraction = config.train.class_counts_warmup
  if not fraction:
    return set(), lambda step: {}
  final = final_class_counts(model)

  def at(step):
    counts = class_counts_at(step, last_step, fraction, model.num_classes, final)
    return {'class_counts': tuple(counts.tolist())}

  return {math.ceil(fraction * last_step)}, at
