"""Fitting variables from elsewhere to a network.

A variable is named by its collection and path, 'params/stage1_block0/dwconv/kernel'. Patterns (allow_missing
and the like) match the path alone, as optimizer.groups does: 'stage1_block0/dwconv/kernel'.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ctx_flax.models import Detector, Network, families
from ctx_flax.models.weight_files import flatten, is_ours, load_weights, save_weights, unflatten

__all__ = ['fit', 'flatten', 'is_ours', 'load_weights', 'save_weights', 'unflatten']

EMBEDDINGS = 'contextualizer/class_embedding'
BACKBONE = 'backbone/'  # of a detector: where the parameters of a network are
DETECTOR_CLASSES = 'mask_head0/logits/bias'


def groups() -> dict[str, str]:
  """What allow_missing may name beside regexes: {name: regex of the parameters, of any family}."""
  known = families().values()
  convs = '|'.join(dict.fromkeys(family.contextual_conv for family in known))
  heads = '|'.join(dict.fromkeys(name.partition('/')[0] for family in known for name in family.class_head))
  contextual = rf'contextualizer/.*|stage\d+_block\d+/({convs})/(sampling|kernel)_\w+/.*'
  return {
    'contextual': f'({BACKBONE})?({contextual})',
    'head': f'({BACKBONE})?({EMBEDDINGS}|({heads})/.*)',
    'detector': r'(output_norm\d|neck|rpn_head|box_head\d|mask_head\d)/.*',
  }


def class_parameters() -> str:
  """A regex of the parameters that depend on the label set, of any family."""
  last = '|'.join(dict.fromkeys(family.class_head[-1].partition('/')[0] for family in families().values()))
  return rf'{EMBEDDINGS}|({last})/.*'


def class_variables() -> tuple[str, ...]:
  """Parameters whose first axis is that of the classes, of any family; a network has one of them."""
  return EMBEDDINGS, *(family.class_head[-1] for family in families().values()), DETECTOR_CLASSES


def number_of_classes(names_and_arrays: Mapping[str, Any]) -> int:
  """The number of classes that variables {'params/...': array} tell apart; 0 without a class head."""
  arrays = (names_and_arrays.get(f'params/{name}') for name in class_variables())
  return next((len(array) for array in arrays if array is not None), 0)


def expected_variables(model: Network | Detector) -> dict[str, Any]:
  """The variables of a network, nested, as shapes and dtypes; nothing is computed."""
  return jax.eval_shape(lambda: _initial(model, jax.random.key(0)))


def fit(
  model: Network | Detector,
  found: Mapping[str, Any],
  *,
  allow_missing: str | Iterable[str] = (),
  reset: str = '',
  initial: Mapping[str, Any] | None = None,
  shown: Callable[[str], str] = str,
  what: str = 'the weights',
  unknown: Sequence[str] = (),
) -> tuple[dict[str, Any], list[str]]:
  """Variables of a network from arrays of the same names; every one of both sides is accounted for.

  Args:
    model: a network or a detector of ctx_flax.models.
    found: {'params/...': array}.
    allow_missing: names of `groups` and regexes of the parameters that may be absent, or of another shape;
      they keep their initial values. 'head' leaves out a class head that the network does not have, too, and
      'detector' takes the weights of a classification network, without its class head, for the backbone.
    reset: regex of the parameters that keep their initial values even so; it leaves out such a head, too.
    initial: variables with the initial values; None makes them as model.init does with key 0.
    shown: name of a variable -> what an error message calls it.
    what: the found arrays, for error messages.
    unknown: names in the source that are none here, for the error message.

  Returns:
    (variables, names that kept their initial values).

  Raises:
    ValueError: names all that is missing, left over or of another shape, at once; or a pattern is wrong.
  """
  allow_missing = as_tuple(allow_missing)
  patterns = compile_patterns(allow_missing, 'allow_missing')
  if isinstance(model, Detector) and not any(_in_backbone(name) for name in found):
    if 'detector' not in allow_missing:
      raise ValueError(
        f'{what} holds the weights of a classification network alone, which detects nothing: train a '
        "detector from them, with 'detector' in allow_missing"
      )
    found, shown = _of_backbone(model, found), functools.partial(_shown_in_backbone, shown)
  expected = flatten(expected_variables(model))
  _check_patterns(allow_missing, patterns, expected)
  fresh, missing, shapes = [], [], []
  for name, leaf in expected.items():
    if reset and re.fullmatch(reset, name.partition('/')[2]):
      fresh.append(name)
    elif name not in found or found[name].shape != leaf.shape:
      if matches(patterns, name):
        fresh.append(name)
      elif name in found:
        shapes.append(f'{shown(name)} is {found[name].shape} there and {leaf.shape} here')
      else:
        missing.append(shown(name))
  left = [name for name in found if name not in expected]
  if 'head' in allow_missing or reset:
    left = [name for name in left if not re.fullmatch(groups()['head'], name.partition('/')[2])]
  left = [*map(shown, left), *unknown]
  problems = [
    f'{kind} ({len(names)}): {", ".join(sorted(names))}'
    for kind, names in (('missing', missing), ('left over', left), ('of another shape', shapes))
    if names
  ]
  if problems:
    raise ValueError(
      f'{what}: these weights do not fit the network: {"; ".join(problems)}. What may be '
      f'missing or differ is named by allow_missing: {", ".join(groups())} or regexes of parameters'
    )
  if fresh:
    start = flatten(_initial(model, jax.random.key(0)) if initial is None else initial)
  values = {
    name: start[name] if name in fresh else jnp.asarray(found[name]).astype(leaf.dtype)
    for name, leaf in expected.items()
  }
  return unflatten(values), fresh


def _in_backbone(name: str) -> bool:
  return name.partition('/')[2].startswith(BACKBONE)


def _of_backbone(model: Detector, found: Mapping[str, Any]) -> dict[str, Any]:
  """The variables of a classification network as those of a backbone, which has no head of the last stage."""
  last = len(model.backbone.dims)
  unused = re.compile(f'{groups()["head"]}|contextualizer/head{last}/.*')
  kept = {}
  for name, value in found.items():
    collection, _, path = name.partition('/')
    if path == EMBEDDINGS or not unused.fullmatch(path):
      kept[f'{collection}/{BACKBONE}{path}'] = value
  return kept


def _shown_in_backbone(shown: Callable[[str], str], name: str) -> str:
  alone = name.replace(BACKBONE, '', 1)
  return shown(alone).replace(alone, name) if _in_backbone(name) else name


def compile_patterns(given: str | Iterable[str], field: str) -> list[re.Pattern[str]]:
  """Regexes of names of `groups` or of parameters; ValueError for one that is no regex."""
  compiled = []
  for pattern in as_tuple(given):
    try:
      compiled.append(re.compile(groups().get(pattern, pattern)))
    except (re.error, TypeError) as error:
      raise ValueError(f'{field} holds {pattern!r}, which is no regular expression: {error}') from None
  return compiled


def matches(patterns: Iterable[re.Pattern[str]], name: str) -> bool:
  """Whether one of the patterns matches the whole path of a variable 'params/PATH'."""
  return any(pattern.fullmatch(name.partition('/')[2]) for pattern in patterns)


def as_tuple(given: str | Iterable[str]) -> tuple[str, ...]:
  """A single name or several -> a tuple, without empty ones."""
  return tuple(filter(None, (given,) if isinstance(given, str) else given))


def _check_patterns(
  given: str | Iterable[str], patterns: Sequence[re.Pattern[str]], expected: Mapping[str, Any]
) -> None:
  for pattern, compiled in zip(as_tuple(given), patterns, strict=True):
    if pattern not in groups() and not any(matches([compiled], name) for name in expected):
      raise ValueError(
        f'allow_missing holds {pattern!r}, which is none of {", ".join(groups())} and matches no parameter '
        'such as stage1_block0/norm/scale'
      )


@functools.partial(jax.jit, static_argnames='model')
def _initial(model: Network | Detector, key: jax.Array) -> Any:
  return model.init(key, jnp.zeros((1, *model.example_shape())), train=False)
