"""Fonts to draw with: those that matplotlib ships."""

import pathlib


def font_file(name: str) -> str:
  """The path of a font that matplotlib ships.

  Raises:
    FileNotFoundError: it does not ship that one.
  """
  import matplotlib

  path = pathlib.Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / f'{name}.ttf'
  if not path.is_file():
    raise FileNotFoundError(f'matplotlib does not ship {path.name}: pip install -r requirements.txt')
  return str(path)
