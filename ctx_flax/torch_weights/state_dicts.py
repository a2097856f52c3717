"""State dicts of PyTorch in files: .safetensors without PyTorch, .pth with it."""

import os
import pathlib
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import safetensors.numpy

from ctx_flax.files import replacing, write_bytes
from ctx_flax.models.weight_files import read_safetensors

PICKLED = '.pth', '.pt', '.bin', '.tar'
# What training programs call the weights among the other things that they save.
ENTRIES = 'model', 'state_dict', 'model_state_dict'


def read_state_dict(
  path_or_dict: str | os.PathLike[str] | dict[str, Any], entry: str = ''
) -> dict[str, np.ndarray]:
  """{name: numpy array} of a file or of a dict of arrays or tensors.

  Args:
    path_or_dict: a .safetensors file, a file of torch.save, or a dict.
    entry: which part holds the weights where a file holds several ('state_dict_ema'); '' takes the whole, or
      the first of ENTRIES.

  Raises:
    ValueError: the file is damaged or of another kind, has no such entry, or holds what is no array.
    OSError: it cannot be read.
    ImportError: it takes PyTorch to read, which is not installed; says how to convert it.
  """
  what = name_of(path_or_dict)
  state = path_or_dict if isinstance(path_or_dict, dict) else _read(_home(path_or_dict))
  if entry:
    if not isinstance(state.get(entry), dict):
      raise ValueError(f'{what} has no entry {entry!r}: {_short(state)}')
    state = state[entry]
  elif any(isinstance(value, dict) for value in state.values()):
    inner = next((name for name in ENTRIES if isinstance(state.get(name), dict)), None)
    if inner is None:
      raise ValueError(
        f'{what} holds several things, none of them called {" or ".join(ENTRIES)}: {_short(state)}'
      )
    state = state[inner]
  if state and all(name.startswith('module.') for name in state):  # of DistributedDataParallel
    state = {name.removeprefix('module.'): value for name, value in state.items()}
  return {name: _as_numpy(name, value, what) for name, value in state.items()}


def name_of(path_or_dict: str | os.PathLike[str] | dict[str, Any]) -> str:
  """What error messages call a file or a dict."""
  return 'the given dict' if isinstance(path_or_dict, dict) else str(path_or_dict)


def _home(path: str | os.PathLike[str]) -> pathlib.Path:
  return pathlib.Path(os.path.expanduser(path))


def write_state_dict(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
  """Writes {name: numpy array} to a .safetensors or, with PyTorch, a .pth file, atomically."""
  path = _home(path)
  arrays = {name: np.asarray(value, order='C') for name, value in arrays.items()}
  if path.suffix not in ('.safetensors', *PICKLED):
    raise ValueError(f'{path} must end in .safetensors, or with PyTorch installed in {", ".join(PICKLED)}')
  if path.suffix == '.safetensors':
    write_bytes(path, safetensors.numpy.save(arrays))
    return
  torch = _torch(f'writing {path}')
  with replacing(path) as part:
    torch.save({name: torch.from_numpy(value.copy()) for name, value in arrays.items()}, part)


def _read(path: pathlib.Path) -> dict[str, Any]:
  if path.suffix == '.safetensors':
    return read_safetensors(path)[0]
  if not path.is_file():
    raise FileNotFoundError(f'{path} does not exist')
  if path.suffix not in PICKLED:
    raise ValueError(f'{path} is no file of weights: expected .safetensors, {", ".join(PICKLED)}')
  torch = _torch(f'reading {path}')
  try:
    state = torch.load(path, map_location='cpu', weights_only=True)
  except FileNotFoundError:
    raise
  except Exception as error:  # torch's unpickler raises whatever a damaged file leads it to
    reason = str(error).strip().splitlines() or [type(error).__name__]
    raise ValueError(f'{path} cannot be read by torch.load(weights_only=True): {reason[0]}') from error
  if not isinstance(state, dict):
    raise ValueError(f'{path} holds a {type(state).__name__}; expected a state dict')
  return state


def _torch(purpose: str) -> ModuleType:
  try:
    import torch
  except ImportError:
    raise ImportError(
      f'{purpose} takes PyTorch: pip install torch, or convert the file where it is installed: python -c '
      "\"import torch, safetensors.torch as s; w = torch.load('IN.pth', map_location='cpu', "
      "weights_only=True); w = w.get('model', w); s.save_file({k: v.contiguous() for k, v in w.items()}, "
      "'OUT.safetensors')\""
    ) from None
  return torch


def _as_numpy(name: object, value: Any, what: str) -> np.ndarray:
  if hasattr(value, 'detach'):  # a tensor; NumPy has no bfloat16 of torch's
    value = value.detach().cpu()
    value = (value.float() if value.is_floating_point() else value).numpy()
  if not isinstance(name, str) or not hasattr(value, 'shape'):
    raise ValueError(f'{what} holds {name!r}, a {type(value).__name__}: expected names and arrays')
  return np.asarray(value)


def _short(state: Iterable[Any]) -> str:
  names = [str(name) for name in state]
  return f'it holds {", ".join(names[:6])}{f" and {len(names) - 6} more" if len(names) > 6 else ""}'
