"""The files of one checkpoint: what is restored is what was saved, or a DamagedCheckpoint says what is wrong.

The checksums of the arrays are saved beside them, because blocks of zeros, as a power cut leaves them, may
restore as zeros. Checkpoints that lack them are restored too; an array that is not finite is damage there.
"""

import functools
import json
import os
import pathlib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import flax.serialization
import flax.traverse_util
import numpy as np
import tensorstore
from orbax.checkpoint import v1 as ocp

LISTED = 6  # names in an error message, of each kind
LAST = '_CHECKPOINT_METADATA'  # is written last
METRICS = pathlib.Path('metrics', 'metrics')
CHECKSUMS = 'crc32'  # of the arrays, by name, in the custom metadata of a checkpoint
CHUNK = 1 << 20  # bytes

Result = TypeVar('Result')


class DamagedCheckpoint(ValueError):
  """A checkpoint whose files are there and can be read, but do not hold what was saved.

  Attributes:
    folder: that of the checkpoint.
    reason: what is wrong.
  """

  def __init__(self, folder: pathlib.Path, reason: str, advice: str = ''):
    super().__init__(f'the checkpoint {folder} is damaged: {reason}{advice}')
    self.folder, self.reason = folder, reason


def checksums(trees: Mapping[str, Any]) -> dict[str, int]:
  """{'tree/path/of/array': CRC-32 of its bytes} of {name: tree of numpy arrays}."""
  leaves = _joined({name: flat(tree) for name, tree in trees.items()})
  return {name: zlib.crc32(np.ascontiguousarray(leaf).data) for name, leaf in leaves.items()}


def restore(folder: pathlib.Path, trees: Mapping[str, Any]) -> dict[str, Any]:
  """Reads {name: tree}, in the structure of `trees`, whose leaves tell shape and dtype; numpy arrays.

  Trees that the checkpoint holds beside these are left out.

  Raises:
    DamagedCheckpoint: it does not hold what was saved.
    ValueError: names, shapes or dtypes differ; the message lists them.
    OSError: it cannot be read.
  """
  check(folder, trees)
  wanted = {name: flat(tree, lambda x: np.empty(x.shape, x.dtype)) for name, tree in trees.items()}
  loaded = _load(folder, wanted)
  return {name: _like(tree, loaded[name]) for name, tree in trees.items()}


def check(folder: pathlib.Path, trees: Mapping[str, Any]) -> None:
  """Raises what `restore` does, but for arrays whose values are not what was saved; keeps nothing."""
  saved = saved_arrays(folder, trees)
  differences = _differences(_joined(saved), _joined({name: flat(tree) for name, tree in trees.items()}))
  if differences:
    raise ValueError(f'{folder} is a checkpoint that does not fit: {differences}')


def read(folder: pathlib.Path, name: str) -> Any:
  """One tree as it was saved, nested dicts of numpy arrays, whatever it holds. Raises as `restore`."""
  saved = saved_arrays(folder, [name])[name]
  wanted = {path: np.empty(leaf.shape, leaf.dtype) for path, leaf in saved.items()}
  return nested(_load(folder, {name: wanted})[name])


def saved_arrays(folder: pathlib.Path, trees: Iterable[str]) -> dict[str, dict[str, Any]]:
  """{tree: {'path/of/array': what has shape and dtype}} of a checkpoint; {} for a tree that it lacks."""
  about = _about(folder)
  handlers = about.get('item_handlers', {})
  metrics(folder)
  if METRICS.name in handlers and not (folder / METRICS).exists():
    raise DamagedCheckpoint(folder, f'{METRICS} is missing')
  for tree in trees:
    if tree in handlers:
      _json(folder, pathlib.Path(tree, '_METADATA'))
      _examined(folder, functools.partial(_read_through, folder / tree))
  metadata = _examined(folder, lambda: ocp.checkpointables_metadata(folder.absolute()).metadata)
  arrays, checked = {}, _checksums(about)
  for tree in trees:
    if tree in handlers and metadata.get(tree) is None:
      raise DamagedCheckpoint(folder, f'the arrays of {tree} cannot be listed')
    arrays[tree] = flat(metadata.get(tree) or {})
    there = {f'{tree}/{path}' for path in arrays[tree]}
    if checked and there != {name for name in checked if name.startswith(f'{tree}/')}:
      raise DamagedCheckpoint(folder, f'{tree} does not list the arrays that were saved')
  return arrays


def metrics(folder: pathlib.Path) -> dict[str, float]:
  """The metrics that a checkpoint was saved with, {} if with none. Raises as `restore`."""
  return _json(folder, METRICS) if (folder / METRICS).exists() else {}


def _about(folder: pathlib.Path) -> dict[str, Any]:
  about = _json(folder, pathlib.Path(LAST))
  if isinstance(about.get('item_handlers', {}), dict):
    return about
  raise DamagedCheckpoint(folder, f'{LAST} is damaged')


def _checksums(about: dict[str, Any]) -> dict[str, int]:
  custom = about.get('custom_metadata')
  return custom.get(CHECKSUMS, {}) if isinstance(custom, dict) else {}


def _json(folder: pathlib.Path, name: pathlib.Path) -> dict[str, Any]:
  try:
    content = json.loads((folder / name).read_bytes())
  except FileNotFoundError:
    if not folder.is_dir():
      raise
    raise DamagedCheckpoint(folder, f'it is not complete, {name} is missing') from None
  except ValueError:
    raise DamagedCheckpoint(folder, f'{name} is cut short or overwritten') from None
  if not isinstance(content, dict):
    raise DamagedCheckpoint(folder, f'{name} is overwritten')
  return content


def _load(folder: pathlib.Path, wanted: dict[str, dict[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
  """The arrays of {tree: {'path/of/array': array of that shape}}, compared with their checksums."""
  abstract = {name: nested(arrays) for name, arrays in wanted.items()}
  trees = _examined(folder, lambda: ocp.load_checkpointables(folder.absolute(), abstract))
  loaded = {name: flat(trees[name], np.asarray) for name in wanted}
  saved = _checksums(_about(folder))
  for name, checksum in (checksums(loaded) if saved else {}).items():
    if saved.get(name) != checksum:
      raise DamagedCheckpoint(folder, f'{name} is not what was saved')
  for name, leaf in ({} if saved else _joined(loaded)).items():
    if not np.all(np.isfinite(leaf)):
      raise DamagedCheckpoint(folder, f'{name} is not finite')
  return loaded


def _read_through(tree: pathlib.Path) -> None:
  """Reads all arrays once, without keeping them: what orbax does with files that are damaged, in threads of
  its own, ends in pages of messages that no caller can hold back."""
  if not (tree / 'manifest.ocdbt').exists():
    if any(tree.glob('ocdbt.process_*')):
      raise DamagedCheckpoint(tree.parent, f'{tree.name}/manifest.ocdbt is missing')
    return  # another format
  store = {'driver': 'ocdbt', 'base': {'driver': 'file', 'path': f'{tree.absolute()}/'}}
  drivers = {'zarr.json': 'zarr3', '.zarray': 'zarr'}  # by the name of an array's own metadata
  for key in tensorstore.KvStore.open(store).result().list().result():
    path, _, last = key.decode().rpartition('/')
    if last in drivers:
      spec = {'driver': drivers[last], 'kvstore': store | {'path': f'{path}/'}}
      tensorstore.open(spec, read=True).result().read().result()


def _examined(folder: pathlib.Path, action: Callable[[], Result]) -> Result:
  """What `action` returns. What it raises has many types and causes: a DamagedCheckpoint if all files can be
  read and a second try fails too, an OSError if not."""
  for last in (False, True):
    try:
      return action()
    except (DamagedCheckpoint, MemoryError):
      raise
    except Exception as error:  # orbax and tensorstore raise many types, by where the damage is
      fault = _empty_file(folder)
      if fault or last:
        raise DamagedCheckpoint(folder, fault or _in_short(error, folder)) from error
  raise AssertionError


def _in_short(error: Exception, folder: pathlib.Path) -> str:
  text = ' '.join(str(error).partition(' [tensorstore_spec=')[0].split())
  files = re.findall(r'local file "([^"]*[^"/])"', text)
  if files:
    return f'{os.path.relpath(files[-1], folder)} is missing, cut short or overwritten'
  return f'it cannot be restored ({text.rpartition(chr(34) + ": ")[2][:160] or type(error).__name__})'


def _empty_file(folder: pathlib.Path) -> str:
  """Which file is empty or holds nothing but zeros, '' for none. OSError if one cannot be read."""
  for parent, _, files in os.walk(folder, onerror=_raise):
    for path in sorted(pathlib.Path(parent, name) for name in files):
      with path.open('rb') as file:
        zeros = True
        while chunk := file.read(CHUNK):
          zeros = zeros and chunk.count(0) == len(chunk)
        if zeros:
          return f'{path.relative_to(folder)} is {"full of zeros" if file.tell() else "empty"}'
  return ''


def _raise(error: OSError) -> None:
  raise error


def flat(tree: Any, convert: Callable[[Any], Any] = lambda x: x) -> dict[str, Any]:
  """Any tree -> {'a/b/c': leaf}; empty nodes (optax has many) vanish."""
  leaves = flax.traverse_util.flatten_dict(flax.serialization.to_state_dict(tree), sep='/')
  return {name: convert(leaf) for name, leaf in leaves.items()}


def nested(leaves: dict[str, Any]) -> Any:
  """{'a/b/c': leaf} -> nested dicts."""
  return flax.traverse_util.unflatten_dict(leaves, sep='/')


def _joined(trees: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
  """{tree: {'a/b/c': leaf}} -> {'tree/a/b/c': leaf}."""
  return {f'{tree}/{path}': leaf for tree, leaves in trees.items() for path, leaf in leaves.items()}


def _like(tree: Any, leaves: dict[str, Any]) -> Any:
  """The leaves in the structure of `tree`, empty nodes included."""
  everything = flax.traverse_util.flatten_dict(
    flax.serialization.to_state_dict(tree), keep_empty_nodes=True, sep='/'
  )
  return flax.serialization.from_state_dict(tree, nested(everything | leaves))


def _differences(saved: dict[str, Any], wanted: dict[str, Any]) -> str:
  both = [name for name in wanted if name in saved]
  kinds = {
    'missing in it': [_described(name, wanted[name]) for name in wanted if name not in saved],
    'only in it': [_described(name, saved[name]) for name in saved if name not in wanted],
    'different in it': [
      f'{_described(name, saved[name])} instead of {_described("", wanted[name]).strip()}'
      for name in both
      if (tuple(saved[name].shape), saved[name].dtype) != (wanted[name].shape, wanted[name].dtype)
    ],
  }
  return '; '.join(f'{kind}: {_listed(sorted(names))}' for kind, names in kinds.items() if names)


def _described(name: str, leaf: Any) -> str:
  return f'{name} {tuple(leaf.shape)} {np.dtype(leaf.dtype).name}'


def _listed(names: list[str]) -> str:
  more = f' and {len(names) - LISTED} more' if len(names) > LISTED else ''
  return ', '.join(names[:LISTED]) + more
