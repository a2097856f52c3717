"""The named intermediates of a network, its second output."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


class Intermediates(dict[str, Any]):
  """The `out` of a model: name -> array, in the order in which the network computes them.

  `add` maps names to arrays that are added as the intermediates are recorded; the gradient with respect
  to a zero that was added is the gradient with respect to the intermediate (Grad-CAM without hooks).
  `replace` maps names to arrays that take the place of the intermediates first: with {'context2': g} the
  contextual convolutions of stage 2 are given g. What the network does not read again, as 'logits1', changes
  in `out` alone.

  In a network of clips what is of frames comes as (b * t, ...), clip by clip, and is stored as (b, t, ...).
  """

  def __init__(
    self,
    add: Mapping[str, jax.Array] | None = None,
    frames: int = 1,
    replace: Mapping[str, jax.Array] | None = None,
  ) -> None:
    super().__init__()
    self._changes = {'replace': dict(replace or {}), 'add': dict(add or {})}
    self._frames = frames

  def record(self, name: str, value: jax.Array, *, of_frames: bool = False) -> jax.Array:
    """Stores value, or what the caller puts in its place or adds to it, under name.

    Returns:
      What is stored, in the shape that value came in.
    """
    shape = value.shape
    value = self._stored(value) if of_frames else value
    for change, arrays in self._changes.items():
      if name in arrays:
        array = arrays.pop(name)
        if jnp.shape(array) != value.shape:
          raise ValueError(f'{change}[{name!r}] has shape {jnp.shape(array)}; expected {value.shape}')
        value = value + array if change == 'add' else jnp.asarray(array, value.dtype)
    self[name] = value
    return value.reshape(shape)

  def record_adaptation(self, block: str, adaptation: Mapping[str, jax.Array] | None) -> None:
    """Stores how a contextual block adapted under offsets, mask and kernel_delta, keyed 'stage.block'."""
    for name, value in (adaptation or {}).items():
      self.setdefault(name, {})[block] = self._stored(value)

  def finish(self) -> dict[str, Any]:
    """Returns a plain dict; ValueError if `add` or `replace` names what the network does not compute."""
    for change, arrays in self._changes.items():
      if arrays:
        known = [name for name, value in self.items() if not isinstance(value, dict)]
        raise ValueError(f'{change} names {sorted(arrays)}, which the model does not compute; it has {known}')
    return dict(self)

  def _stored(self, value: jax.Array) -> jax.Array:
    return value if self._frames == 1 else value.reshape(-1, self._frames, *value.shape[1:])


def stages_of(out: Mapping[str, Any]) -> tuple[int, ...]:
  """The numbers of the stages whose class scores `out` holds, ascending; the last of them classifies."""
  prefix = 'scores'
  return tuple(sorted(int(name.removeprefix(prefix)) for name in out if name.startswith(prefix)))
