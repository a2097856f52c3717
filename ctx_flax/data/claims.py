"""A folder that a program fills says what with, so that the same command goes on there and no other does."""

import json
import pathlib
from typing import Any

from ctx_flax import files

SETTINGS = 'settings.json'


def claim(root: pathlib.Path, settings: dict[str, Any]) -> None:
  """Makes the folder and notes the settings in it; several processes may do so at once.

  Raises:
    ValueError: it is no folder, or holds other files or what was made with other settings.
    OSError: it cannot be written; names it.
  """
  file, shown = root / SETTINGS, files.printable(root)
  if root.exists() and not root.is_dir():
    raise ValueError(f'{shown} is not a folder')
  if not root.exists() or all(path.suffix == '.part' for path in root.iterdir()):
    files.write_text(file, json.dumps(settings) + '\n', shared=True)
  # Read, and not asked for before: another process may have claimed the folder in between.
  if not file.exists():
    raise ValueError(f'{shown} holds other files: give a new or an empty folder')
  if not is_claimed(root, settings):
    raise ValueError(f'{shown} holds a set of other settings ({files.printable(file)}): give another folder')


def is_claimed(root: pathlib.Path, settings: dict[str, Any]) -> bool:
  """Whether a folder was claimed with these settings."""
  try:
    return bool(json.loads((root / SETTINGS).read_text(encoding='utf-8', errors='replace')) == settings)
  except (FileNotFoundError, NotADirectoryError, ValueError):
    return False
