"""What single parameters have of their own: weight decay or none, and factors on the rate and the decay."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

# The word for the usual parameters without weight decay: everything of one dimension or none (norms, layer
# scales, most biases) and, by their last name, the table of class embeddings and the logarithm of the scores'
# scale (the paper trains both without weight decay), and biases of any shape.
STANDARD = 'standard'
NO_DECAY = ('bias', 'class_embedding', 'logit_scale')
LISTED = 6  # names in an error message


def unit_factor(name: str) -> float:
  """The factor 1 for every parameter."""
  del name
  return 1.0


def parameter_names(params: Any) -> Any:
  """A tree of the parameters' names, such as 'stage2_block0/dwconv/kernel'."""
  return jax.tree_util.tree_map_with_path(lambda path, _: '/'.join(key.key for key in path), params)


def decay_mask(params: Any, no_decay: Sequence[str] = (STANDARD,)) -> Any:
  """A tree of bools: which parameters take weight decay.

  Args:
    params: a tree of parameters or their shapes.
    no_decay: which take none: 'standard' stands for those of fewer than two dimensions or named in NO_DECAY;
      anything else is a regex that matches whole names. () leaves none out.

  Raises:
    ValueError: a regex is invalid or matches no parameter.
  """
  check_no_decay(no_decay)
  names = parameter_names(params)
  patterns = [entry for entry in _entries(no_decay) if entry != STANDARD]
  for pattern in patterns:
    if not any(re.fullmatch(pattern, name) for name in jax.tree.leaves(names)):
      raise ValueError(
        f'optimizer.no_decay holds {pattern!r}, which is not {STANDARD!r} and matches no parameter such as '
        f'{jax.tree.leaves(names)[0]}'
      )

  def decays(name, leaf):
    if STANDARD in _entries(no_decay) and (jnp.ndim(leaf) < 2 or name.rpartition('/')[2] in NO_DECAY):
      return False
    return not any(re.fullmatch(pattern, name) for pattern in patterns)

  return jax.tree.map(decays, names, params)


def group_factors(
  params: Any,
  groups: Sequence[tuple[str, float, float]],
  factor: Callable[[str], float] = unit_factor,
) -> tuple[Any, Any]:
  """The factors of every parameter: a tree of rates and one of decays, both of floats.

  Args:
    params: a tree of parameters, named like 'stage2_block0/dwconv/kernel'.
    groups: (regex, factor on the learning rate, factor on the weight decay), ...; the regex matches a whole
      name. () is one group of all.
    factor: name of a parameter -> another factor on its rate.

  Raises:
    ValueError: a parameter matches no group, or several; the message lists them.
  """
  groups = groups or (('.*', 1.0, 1.0),)
  names = parameter_names(params)
  matches = {
    name: [group for group in groups if re.fullmatch(group[0], name)] for name in jax.tree.leaves(names)
  }
  unmatched = [name for name, matching in matches.items() if not matching]
  ambiguous = [
    f'{name} ({", ".join(repr(regex) for regex, _, _ in matching)})'
    for name, matching in matches.items()
    if len(matching) > 1
  ]
  problems = [
    f'{kind}: {", ".join(listed[:LISTED])}'
    + (f' and {len(listed) - LISTED} more' if len(listed) > LISTED else '')
    for kind, listed in (('in no group', unmatched), ('in several', ambiguous))
    if listed
  ]
  if problems:
    raise ValueError(f'optimizer.groups must match every parameter exactly once; {"; ".join(problems)}')
  rates = jax.tree.map(lambda name: float(matches[name][0][1]) * factor(name), names)
  decays = jax.tree.map(lambda name: float(matches[name][0][2]), names)
  return rates, decays


def layer_factor(decay: float, network: Any) -> Callable[[str], float]:
  """Layer-wise decay: name of a parameter -> decay ** (L + 1 - id of its layer), as BEiT and ConvNeXt do.

  Args:
    decay: 1 is none.
    network: declares `num_layers`, L, and `layer_id(name)`, 0 for the stem up to L + 1 for the heads, which
      thus keep the full rate. Not used if decay is 1.

  Raises:
    ValueError: decay is not above 0 and at most 1, or the network declares no layers.
  """
  if not 0 < decay <= 1:
    raise ValueError(f'optimizer.layer_decay must be above 0 and at most 1 (off), but is {decay}')
  if decay == 1:
    return unit_factor
  if not (hasattr(network, 'layer_id') and hasattr(network, 'num_layers')):
    raise ValueError(
      f'optimizer.layer_decay={decay} needs a network that declares layer_id and num_layers, and '
      f'{type(network).__name__} does not: set it to 1.0'
    )
  return lambda name: decay ** (network.num_layers + 1 - network.layer_id(name))


def check_groups(groups: Sequence[Any]) -> None:
  """Raises ValueError, which shows the group, unless all are (regex, factor >= 0, factor >= 0)."""
  for group in groups:
    try:
      regex, rate, decay = group
      re.compile(regex)
      if 0 <= rate < float('inf') and 0 <= decay < float('inf'):
        continue
    except (TypeError, ValueError, re.error):
      pass
    raise ValueError(
      f'optimizer.groups holds {group!r}: expected (regex, factor on the rate, factor on the decay), '
      'with factors of 0 or more'
    )


def check_no_decay(no_decay: Sequence[str]) -> None:
  """Raises ValueError for an entry that is no regex of names."""
  for entry in _entries(no_decay):
    try:
      re.compile(entry)
    except (TypeError, re.error) as error:
      raise ValueError(
        f'optimizer.no_decay holds {entry!r}: expected {STANDARD!r} or a regex of parameter names ({error})'
      ) from None


def _entries(no_decay):
  return (no_decay,) if isinstance(no_decay, str) else tuple(no_decay)
