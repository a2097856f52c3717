"""The set `emoji`, drawn once, as two zip files of images beside their licences.

DIR/emoji_96.zip and DIR/emoji_48.zip hold STYLE/CLASS.png, 96 and 48 pixels wide and high, RGBA with straight
alpha, stored without further compression, for the styles of ctx_flax.data.emoji_styles and the classes of
emoji_classes.txt. DIR/LICENSES.md says whose pictures they are, DIR/emoji.json what they were made from.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping

import rich.progress

from ctx_flax import files, terminal
from ctx_flax.data import emoji_images, emoji_npm, emoji_packages
from ctx_flax.data.claims import claim, is_claimed
from ctx_flax.data.emoji import CLASSES, class_list
from ctx_flax.data.emoji_icons import Icon, Icons
from ctx_flax.data.emoji_images import SIZES, DrawAll
from ctx_flax.data.emoji_licences import FILE as LICENCES
from ctx_flax.data.emoji_licences import licences
from ctx_flax.data.emoji_packages import Package
from ctx_flax.data.emoji_styles import STYLES, TEST_STYLES, TRAIN_STYLES

FORM = 1  # of the files: counted up when their names or pixels change
INDEX = 'emoji.json'
PARTS = 'parts'  # in the folder: the styles drawn so far, removed at the end
DATE = (1980, 1, 1, 0, 0, 0)  # of every entry of the zip files, so that their bytes follow from the images


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
  """Adds the options of the command."""
  parser.add_argument(
    '--packages',
    action='append',
    default=[],
    metavar='PATH',
    help='folder or .tgz file of an npm package with the pictures, or folder of several; may be given again; '
    'without it npm fetches them',
  )
  parser.add_argument(
    '--any-version',
    action='store_true',
    help='take packages of other versions than those that the classes were chosen for',
  )
  cores = os.cpu_count() or 1
  parser.add_argument('--processes', type=int, default=cores, help=f'by default as many as cores, {cores}')


def write_folder(name: str, root: pathlib.Path, options: argparse.Namespace) -> str:
  """Draws the set, or the part of it that the same command has not drawn yet.

  Every file is written whole or not at all, and a style is kept as soon as all its images are drawn, so that
  the same command continues after it was killed.

  Args:
    name: of the command.
    root: the folder, new or empty or from the same command.
    options: what `add_options` parses.

  Returns:
    What to type to train on it.

  Raises:
    ValueError: an option is wrong, a package is missing or broken, or the folder holds something else.
    OSError: the folder cannot be written; names it.
    ImportError: resvg-py is not installed.
  """
  if not 1 <= options.processes <= 1024:
    raise ValueError(f'--processes must be 1 to 1024, but is {options.processes}')
  packages: dict[str, Package] = {}
  if options.packages:
    paths = [pathlib.Path(os.path.expanduser(path)) for path in options.packages]
    packages = emoji_packages.find(paths, options.any_version)
  versions = {style: packages[style].version if packages else STYLES[style].version for style in STYLES}
  settings = {'name': name, 'form': FORM, 'classes': _sha256(CLASSES), 'versions': versions}
  if not (is_claimed(root, settings) and is_whole(root)):
    emoji_images.require_resvg()
    if not packages:
      emoji_npm.require_npm()
    claim(root, settings)
    with rich.progress.Progress(console=terminal.console(sys.stderr)) as progress:
      if not packages:
        task = progress.add_task('npm packages', total=len(STYLES))
        packages = emoji_npm.fetch(root / PARTS, lambda: progress.advance(task))
      _draw(root, packages, options.processes, progress)
    _check_classes(root)
    _finish(root, packages)
  shutil.rmtree(root / PARTS, ignore_errors=True)
  return f'--config=configs/emoji.py {files.shell_word(f"--config.data.path={root}")}'


def is_whole(root: pathlib.Path) -> bool:
  """Whether a folder holds the whole set, with the checksums that it was written with."""
  try:
    written = json.loads((root / INDEX).read_bytes())['sha256']
    return (root / LICENCES).exists() and all(
      _sha256(root / file) == written[file] for file in map(zip_name, SIZES)
    )
  except (FileNotFoundError, ValueError, KeyError, TypeError):
    return False


def zip_name(size: int) -> str:
  """The zip file of the images of a size."""
  return f'emoji_{size}.zip'


def _draw(
  root: pathlib.Path, packages: Mapping[str, Package], processes: int, progress: rich.progress.Progress
) -> None:
  """Writes the parts of the styles that are not there yet."""
  missing = [style for style in STYLES if not all(zipfile.is_zipfile(_part(root, style, s)) for s in SIZES)]
  classes = len(class_list())
  task = progress.add_task(
    'drawing', total=len(STYLES) * classes, completed=(len(STYLES) - len(missing)) * classes
  )
  with emoji_images.drawing(processes if missing else 1) as draw_all:
    for style in missing:
      icons = _icons(packages[style].icons(), packages[style])
      progress.advance(task, classes - len(icons))  # it has no pictures of these
      images = _draw_style(style, icons, draw_all, lambda: progress.advance(task))
      for size in SIZES:
        _write_zip(_part(root, style, size), ((name, image[size]) for name, image in images.items()))


def _icons(icons: Icons, package: Package) -> dict[str, Icon]:
  """{class: picture} of the classes that a package has."""
  try:
    return {name: icons[name] for name in class_list() if name in icons}
  except ValueError as error:
    raise ValueError(f'{files.printable(package.path)}: icons.json: {error}') from None


def _draw_style(
  style: str, icons: Mapping[str, Icon], draw_all: DrawAll, advance: Callable[[], None]
) -> dict[str, dict[int, bytes]]:
  """{entry of the zip files: its image by size}."""
  images = {}
  for name, drawn in zip(icons, draw_all(icons.values()), strict=True):
    if isinstance(drawn, str):
      raise ValueError(f'the picture {name!r} of {STYLES[style].package} cannot be drawn: {drawn}')
    images[f'{style}/{name}.png'] = drawn
    advance()
  return images


def _check_classes(root: pathlib.Path) -> None:
  """Every class needs a picture in each style that is tested, and in one to train on."""
  having = {style: set(_names(_part(root, style, SIZES[0]))) for style in STYLES}
  for style in TEST_STYLES:
    lacking = [name for name in class_list() if f'{style}/{name}.png' not in having[style]]
    if lacking:
      raise ValueError(_lacking(STYLES[style].package, lacking))
  lacking = [
    name for name in class_list() if not any(f'{style}/{name}.png' in having[style] for style in TRAIN_STYLES)
  ]
  if lacking:
    raise ValueError(_lacking(', '.join(STYLES[style].package for style in TRAIN_STYLES), lacking))


def _lacking(packages: str, names: list[str]) -> str:
  more = f' and {len(names) - 3} more' if len(names) > 3 else ''
  return (
    f'{packages} has no picture of {", ".join(names[:3])}{more}, which are classes: take the stated versions'
  )


def _finish(root: pathlib.Path, packages: Mapping[str, Package]) -> None:
  """Joins the parts, and writes LICENSES.md and emoji.json."""
  for size in SIZES:
    _write_zip(root / zip_name(size), _entries(root, size))
  files.write_text(root / LICENCES, licences(packages))
  about = {
    'form': FORM,
    'resvg': emoji_images.require_resvg().__resvg_version__,
    'classes': len(class_list()),
    'styles': {
      style: {
        'package': f'{package.name}@{package.version}',
        'licence': STYLES[style].licence,
        'images': len(_names(_part(root, style, SIZES[0]))),
      }
      for style, package in packages.items()
    },
    'sha256': {file: _sha256(root / file) for file in map(zip_name, SIZES)},
  }
  files.write_text(root / INDEX, json.dumps(about, indent=2) + '\n')


def _entries(root: pathlib.Path, size: int) -> Iterator[tuple[str, bytes]]:
  for style in STYLES:
    with zipfile.ZipFile(_part(root, style, size)) as part:
      for name in part.namelist():
        yield name, part.read(name)


def _names(path: pathlib.Path) -> list[str]:
  with zipfile.ZipFile(path) as part:
    return part.namelist()


def _write_zip(path: pathlib.Path, entries: Iterable[tuple[str, bytes]]) -> None:
  """Writes a zip file, whole or not at all; its bytes follow from the entries alone."""
  with files.replacing(path) as part, zipfile.ZipFile(part, 'w', zipfile.ZIP_STORED) as output:
    for name, content in entries:
      entry = zipfile.ZipInfo(name, DATE)
      entry.create_system = 3  # Unix, wherever it is written
      entry.external_attr = 0o644 << 16
      output.writestr(entry, content)


def _part(root: pathlib.Path, style: str, size: int) -> pathlib.Path:
  return root / PARTS / f'{style}_{size}.zip'


def _sha256(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
