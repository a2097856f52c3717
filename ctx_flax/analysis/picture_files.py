"""Names for pictures of a user's images: below one folder, never over another picture or an image."""

import os
import pathlib
from collections.abc import Sequence

from ctx_flax.files import printable


class PictureFiles:
  """A folder of PNG files, one for each image.

  Their paths repeat those of the images below the folder that all images have in common: 'a/1.png' for
  'a/1.jpg', or 'a/1.jpg.png' if two pictures would have the same name otherwise.

  Args:
    folder: of the pictures; whoever writes them creates it.
    images: names of all image files.

  Raises:
    ValueError: one of the images lies in the folder, where a picture could take its place.
  """

  def __init__(self, folder: str, images: Sequence[str]) -> None:
    root = os.path.realpath(os.path.expanduser(folder))
    inside = os.path.join(root, '')
    for name in images:
      if os.path.realpath(name).startswith(inside):
        raise ValueError(
          f'predict.pictures is {printable(folder)}, where {printable(name)} lies, which is one of the '
          'images: take another folder for the pictures'
        )
    absolute = {name: os.path.abspath(name) for name in images}
    common = os.path.commonpath([os.path.dirname(path) for path in absolute.values()])
    below = {path: pathlib.Path(os.path.relpath(path, common)) for path in absolute.values()}
    # With the images' own endings if some names would be the same without.
    same = len({path.with_suffix('') for path in below.values()}) < len(below)
    named = {path: f'{path.name if same else path.stem}.png' for path in below.values()}
    self._paths = {
      image: pathlib.Path(root, below[path].with_name(named[below[path]])) for image, path in absolute.items()
    }

  def path(self, image: str) -> pathlib.Path:
    """Where the picture of an image lies."""
    return self._paths[image]
