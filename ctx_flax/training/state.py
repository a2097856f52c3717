"""What changes in training."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct


class TrainState(struct.PyTreeNode):
  """All that changes in training. Random keys are not in it: they come from the seed and `step`."""

  step: jax.Array  # int32 scalar: optimizer steps taken
  params: Any
  batch_stats: Any  # {} if the model has no BatchNorm
  opt_state: Any
  ema: Any  # averaged {'params', 'batch_stats'?}; {} if it is off

  @property
  def variables(self) -> dict[str, Any]:
    """What `model.apply` and the evaluation step take; `ema` has the same structure."""
    return as_variables(self.params, self.batch_stats)


def as_variables(params: Any, batch_stats: Any) -> dict[str, Any]:
  """{'params', 'batch_stats'?}: Flax's collections, without an empty one."""
  return {'params': params, 'batch_stats': batch_stats} if batch_stats else {'params': params}


def create_state(variables: Any, tx: optax.GradientTransformation, ema: bool) -> TrainState:
  """The state at step 0.

  Args:
    variables: initial {'params', 'batch_stats'?}.
    tx: the optimizer.
    ema: whether to keep averaged variables; they start as the initial ones.

  Returns:
    A TrainState on the default device.
  """
  params, batch_stats = variables['params'], variables.get('batch_stats', {})
  # Copies in float32: the step gives its input's memory to its output, where no two leaves may share it, and
  # a decay of 0.9999 needs more digits than bfloat16 has.
  averaged = jax.tree.map(
    lambda x: jnp.array(x, jnp.promote_types(x.dtype, jnp.float32)), as_variables(params, batch_stats)
  )
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=batch_stats,
    opt_state=tx.init(params),
    ema=averaged if ema else {},
  )
