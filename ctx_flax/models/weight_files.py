"""Files of variables.

A variable is named by its collection and path, 'params/stage1_block0/dwconv/kernel'.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import numpy as np
import safetensors
import safetensors.numpy

from ctx_flax.files import write_bytes

FORMAT = 'ctx_flax variables'


def save_weights(path: str | os.PathLike[str], variables: Mapping[str, Any], **about: Any) -> None:
  """Writes variables to a .safetensors file, atomically.

  Args:
    path: of the file; `~` is expanded.
    variables: {'params': ..., 'batch_stats'?: ...}, nested.
    **about: what `load_weights` gives back beside them, of types that JSON knows: `model`, the keywords of
      create_model, `class_names`, ...
  """
  # In rows, as safetensors writes the bytes as they lie; ascontiguousarray would make vectors of scalars.
  flat = {name: np.asarray(value, order='C') for name, value in flatten(variables).items()}
  metadata = {'format': FORMAT} | {name: json.dumps(value) for name, value in about.items()}
  write_bytes(
    os.path.expanduser(path), safetensors.numpy.save(flat, metadata)
  )  # save_file makes what only its owner can read


def load_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
  """(variables, {name: value}) of a file that `save_weights` wrote; numpy arrays. `~` is expanded.

  Raises:
    ValueError: the file is damaged, or another kind of file.
    OSError: it cannot be read.
  """
  arrays, metadata = read_safetensors(path)
  if metadata.get('format') != FORMAT:
    raise ValueError(
      f'{path} holds no variables of this project (for PyTorch weights there is load_torch_weights)'
    )
  about = {name: json.loads(text) for name, text in metadata.items() if name != 'format'}
  return unflatten(arrays), about


def is_ours(path: str | os.PathLike[str]) -> bool:
  """Whether a file is one of `save_weights`; raises what `load_weights` does for a damaged one."""
  return str(path).endswith('.safetensors') and _header(path).get('format') == FORMAT


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """({name: array}, {name: text}) of any .safetensors file; ValueError where it is damaged."""
  path = os.path.expanduser(path)
  metadata = _header(path)
  try:
    return safetensors.numpy.load_file(path), metadata
  except safetensors.SafetensorError as error:
    raise ValueError(f'{path} cannot be read: {error}') from error


def _header(path: str | os.PathLike[str]) -> dict[str, str]:
  path = os.path.expanduser(path)
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(f'{path} does not exist')
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      return file.metadata() or {}
  except safetensors.SafetensorError as error:
    raise ValueError(f'{path} is no complete .safetensors file: {error}') from error


def flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Nested variables -> {'params/stem_conv/kernel': array}."""
  return flax.traverse_util.flatten_dict(variables, sep='/')


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """The reverse of `flatten`."""
  return flax.traverse_util.unflatten_dict(flat, sep='/')
