"""PyTorch weights in and out: the authors' contextual networks; plain ones of facebook, timm and torchvision,
of clips those of TSM and mmaction2, and detectors of MMDetection."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ctx_flax.models import Detector, Network, families
from ctx_flax.models.weights import class_variables, expected_variables, fit, flatten
from ctx_flax.torch_weights import names
from ctx_flax.torch_weights.state_dicts import name_of, read_state_dict

__all__ = ['load_torch_weights', 'to_torch']


def load_torch_weights(
  path_or_dict: str | os.PathLike[str] | dict[str, Any],
  model: Network | Detector,
  *,
  allow_missing: str | Iterable[str] = (),
  initial: Mapping[str, Any] | None = None,
  entry: str = '',
) -> dict[str, Any]:
  """The variables of a network from PyTorch weights.

  Plain weights start a contextual network as well: with allow_missing=('contextual', 'head'), and with
  mask_gain=2 its features are those of the plain one at first (with mask_gain=1, the paper's, a contextual
  convolution starts at half of the plain one).

  Args:
    path_or_dict: a .safetensors file; a .pth, .pt, .bin or .tar file, where PyTorch is installed; or a dict
      {name: array or tensor}.
    model: a network or a detector of ctx_flax.models.
    allow_missing: what the weights need not have, or may have in another shape: 'contextual' (the branches
      and the contextualizing layers), 'head' (the class head or the class embeddings; a plain head may be
      left over, too), 'detector' (all of a detector but its backbone: weights of a classification network,
      whose own class head is left out), or regexes of parameters, such as 'stage4_block2/.*'. It keeps its
      initial values.
    initial: variables that hold these; None makes them as model.init does with jax.random.key(0).
    entry: the name of the weights in a file that holds several, such as 'state_dict_ema'.

  Returns:
    {'params': ..., 'batch_stats'?: ...}.

  Raises:
    ValueError: the weights are of another family or unknown, do not fit (the message names all that is
      missing, left over or of another shape), or are the authors', whose network reranks, and the model
      selects by reduction.
    OSError, ImportError: the file cannot be read, or not without PyTorch.
  """
  state = read_state_dict(path_or_dict, entry)
  return fit_state_dict(
    state, model, what=name_of(path_or_dict), allow_missing=allow_missing, initial=initial
  )[0]


def fit_state_dict(
  state: Mapping[str, np.ndarray], model: Network | Detector, *, what: str, **keywords: Any
) -> tuple[dict[str, Any], list[str]]:
  """`fit` (see there) of {name in PyTorch: array}; `what` is what error messages call it."""
  source, network = names.recognise(state), model
  if isinstance(model, Detector) and source is not None and source.family in families():
    network = model.backbone  # of which a detector takes what is called like that
  found, unknown, shown = _ours_from_torch(state, network, what)
  return fit(model, found, shown=shown, what=what, unknown=unknown, **keywords)


def number_of_classes(state: Mapping[str, np.ndarray]) -> int:
  """The number of classes that the weights of a state dict tell apart, 0 if they have no class head."""
  for source in names.SOURCES:
    for variable in class_variables():
      name = source.torch_name(['params', *variable.split('/')])
      if name is not None and name in state:
        return len(state[name])
  return 0


def _ours_from_torch(
  state: Mapping[str, np.ndarray], model: Network | Detector, what: str
) -> tuple[dict[str, np.ndarray], list[str], Callable[[str], str]]:
  """State dict -> ({'params/...': array}, names that are none of ours, function from our names to theirs)."""
  source = names.recognise(state)
  family = type(model).__name__
  if source is None:
    listed = ', '.join(list(state)[:4])
    known = ', '.join(dict.fromkeys(map(str, names.SOURCES)))
    raise ValueError(f'{what} holds weights of an unknown network ({listed}, ...); known: {known}')
  if source.family != family:
    raise ValueError(f'{what} holds the weights of {source}, which do not fit a {family}')
  of_authors = source.name == 'authors' and isinstance(model, Network) and model.contextual
  if of_authors and model.merge_contrast:
    raise ValueError(
      f'{what} holds the weights of {source}, whose mergers were trained on plain means: create the '
      'model with merge_contrast=False'
    )
  if of_authors and model.class_selection == 'reduction':
    raise ValueError(
      f'{what} holds the weights of {source}, which was trained to score all classes at every stage: create '
      "the model with class_selection='rerank' (the default, 'reduction', is the paper's)"
    )
  paths: dict[str, str] = {}
  # A contextual network lacks a plain class head: its names are known all the same.
  plain_head = model.class_head if isinstance(model, Network) else ()
  for name in [*flatten(expected_variables(model)), *(f'params/{name}' for name in plain_head)]:
    theirs = source.torch_name(name.split('/'))
    if theirs is not None:
      paths[theirs] = name
  theirs_of = {name: theirs for theirs, name in paths.items()}
  found: dict[str, np.ndarray] = {}
  unknown = []
  for theirs, value in state.items():
    if theirs in paths:
      name = paths[theirs]
      found[name] = names.from_torch_layout(name.split('/'), value, source)
    elif not theirs.endswith(names.COUNTER):
      unknown.append(theirs)

  def shown(name: str) -> str:
    return f'{theirs_of[name]} (here {name})' if name in theirs_of else name

  return found, unknown, shown


def to_torch(variables: Mapping[str, Any], model: Network | Detector, source: str) -> dict[str, np.ndarray]:
  """A PyTorch state dict of a network's variables.

  Args:
    variables: of the network.
    model: the network or detector.
    source: whose names it shall have: 'authors' (contextual networks), 'facebook', 'timm' or 'torchvision';
        of plain networks of clips 'tsm' or 'mmaction2', of detectors with a plain backbone 'mmdet'.

  Returns:
    {name: numpy array}, what load_torch_weights takes to give exactly these variables; with the counters of
    BatchNorm, which count from 0.

  Raises:
    ValueError: the source has no names for such a network.
  """
  table = names.find_source(source, type(model).__name__)
  found: dict[str, np.ndarray] = {}
  unnamed = []
  collections = {name: variables[name] for name in ('params', 'batch_stats') if name in variables}
  for name, value in flatten(collections).items():
    path = name.split('/')
    theirs = table.torch_name(path)
    if theirs is None:
      unnamed.append(name)
      continue
    theirs = table.prefix + theirs
    found[theirs] = np.asarray(names.to_torch_layout(path, np.asarray(value), table))
    if path[-1] == 'var':
      found[re.sub(r'\.running_var$', names.COUNTER, theirs)] = np.zeros((), np.int64)
  if unnamed:
    raise ValueError(f'{table} has no names for {", ".join(unnamed)}')
  return found
