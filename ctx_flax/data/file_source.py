"""Files below a folder, with their labels: what all sources of image files are."""

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ctx_flax.data.image_files import folder_exists
from ctx_flax.files import printable


class FileSource:
  """Files below a folder, with their labels.

  Args:
    root: the folder.
    names: of the files, relative to it.
    labels: int (n,).
    class_names: in the order of the labels.
    remarks: what there is to say about the files, a line each.
  """

  def __init__(
    self,
    root: str | os.PathLike[str],
    names: Iterable[str],
    labels: npt.ArrayLike,
    class_names: Iterable[str],
    remarks: Sequence[str] = (),
  ) -> None:
    self.root = str(root)
    self.class_names = tuple(class_names)
    self.remarks = tuple(remarks)
    # One string and not a million: it is sent to every worker process.
    encoded = [os.fsencode(name) for name in names]
    self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    self._names = b''.join(encoded)
    self._labels = np.asarray(labels, np.int32)

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  def __len__(self) -> int:
    return len(self._labels)

  def __getitem__(self, index: int) -> dict[str, Any]:
    with open(os.path.join(self.root, self.name(index)), 'rb') as file:
      return {'encoded': file.read(), 'label': int(self._labels[index])}

  def name(self, index: int) -> str:
    """The file's name below `root`; for messages see ctx_flax.files.printable."""
    start = self._ends[index - 1] if index else 0
    return os.fsdecode(self._names[start : self._ends[index]])


def data_folder(data: Any, needs: str) -> pathlib.Path:
  """The folder data.path.

  Args:
    data: config.data.
    needs: what data.name needs there, for messages.

  Raises:
    FileNotFoundError: data.path is empty or not a folder.
    OSError: it cannot be told whether it is one; names it.
  """
  if not data.path:
    raise FileNotFoundError(f'data.path is empty: {data.name} needs {needs}')
  root = pathlib.Path(os.path.expanduser(data.path))
  if not folder_exists(root):
    raise FileNotFoundError(
      f'data.path is {printable(data.path)}, which is not a folder: {data.name} needs {needs}'
    )
  return root
