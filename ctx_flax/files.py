"""Files that are written whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields the name of a file beside `path` to write to, and renames it to `path` at the end.

  Makes the folder. If the block raises, `path` stays as it was and nothing is left beside it; a process that
  is killed leaves the file beside, which the next write replaces.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f'{path.name}.part')
  try:
    yield part
    os.replace(part, path)
  except BaseException:
    part.unlink(missing_ok=True)
    raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
  """Writes a text file as UTF-8, whole or not at all, and makes its folder."""
  with replacing(path) as part:
    part.write_text(text, encoding='utf-8')


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
  """Writes a file, whole or not at all, and makes its folder."""
  with replacing(path) as part:
    part.write_bytes(data)
