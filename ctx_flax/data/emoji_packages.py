"""The npm packages that the set `emoji` is drawn from, as folders and as tarballs."""

import contextlib
import dataclasses
import functools
import gzip
import json
import pathlib
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from ctx_flax import files
from ctx_flax.data.emoji_icons import Icons
from ctx_flax.data.emoji_styles import STYLES, Style

TARBALLS = ('.tgz', '.tar.gz')
LICENCE = re.compile(r'(licen[cs]e|copying|notice)[^/]*', re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Package:
  """A package on disk: a folder with package.json in it, or a tarball of one.

  The methods raise ValueError if it is broken, and OSError if it cannot be read; both name it.
  """

  path: pathlib.Path
  name: str
  version: str

  def icons(self) -> Icons:
    """Its pictures."""
    content = self._json('icons.json')
    try:
      return Icons(content)
    except ValueError as error:
      raise ValueError(f'{files.printable(self.path)}: icons.json {error}') from None

  def info(self) -> dict[str, Any]:
    """Its info.json, about the pictures: name, author, license."""
    return self._json('info.json')

  def licence_texts(self) -> dict[str, str]:
    """Its licence files by name, if there are any."""
    return {
      name: read().decode('utf-8', 'replace') for name, read in _entries(self.path) if LICENCE.fullmatch(name)
    }

  def _json(self, name: str) -> dict[str, Any]:
    return _json(self.path, name)


def open_package(path: pathlib.Path) -> Package:
  """The package in a folder or in a tarball.

  Raises:
    ValueError: it is broken; names it.
    OSError: it cannot be read; names it.
  """
  if not path.is_dir():
    with _named(path), gzip.open(path) as file:
      while file.read(1 << 20):  # to the end, where its checksum is
        pass
  about = _json(path, 'package.json')
  for key in ('name', 'version'):
    if not isinstance(about.get(key), str):
      raise ValueError(f'{files.printable(path)}: package.json has no {key}')
  return Package(path, about['name'], about['version'])


def find(paths: Sequence[pathlib.Path], any_version: bool = False) -> dict[str, Package]:
  """The package of every style, among those that are named.

  Args:
    paths: folders and tarballs of packages, or folders of such.
    any_version: whether other versions than those of the styles will do.

  Raises:
    ValueError: one is missing, broken or of another version.
    OSError: one cannot be read; names it.
  """
  packages: dict[str, list[Package]] = {}
  for path in paths:
    for package in _below(path):
      packages.setdefault(package.name, []).append(package)
  chosen = {
    name: _choose(style, packages[style.package], any_version)
    for name, style in STYLES.items()
    if style.package in packages
  }
  missing = [f'{style.package}@{style.version}' for name, style in STYLES.items() if name not in chosen]
  if missing:
    raise ValueError(
      f'--packages names no {", ".join(missing)} (`npm pack` fetches a package as a .tgz file)'
    )
  return chosen


def _choose(style: Style, packages: list[Package], any_version: bool) -> Package:
  for package in packages:
    if package.version == style.version:
      return package
  shown = ' and '.join(f'{package.version} ({files.printable(package.path)})' for package in packages)
  expected = f'the classes are listed for {style.package}@{style.version}, and --packages names {shown}'
  if not any_version:
    raise ValueError(f'{expected}: name that version, or take another one with --any-version')
  if len(packages) > 1:
    raise ValueError(f'{expected}: name one of them')
  return packages[0]


def _below(path: pathlib.Path) -> list[Package]:
  """The package that a path is, or the packages in the folder that it is."""
  if not path.exists():
    raise ValueError(f'{files.printable(path)}, which --packages names, does not exist')
  if not path.is_dir() or (path / 'package.json').exists():
    return [open_package(path)]
  inner = [
    child
    for child in sorted(path.iterdir())
    if child.name.endswith(TARBALLS) or (child / 'package.json').exists()
  ]
  if not inner:
    raise ValueError(
      f'{files.printable(path)}, which --packages names, holds no package.json and no .tgz files'
    )
  return [open_package(child) for child in inner]


def _json(path: pathlib.Path, name: str) -> dict[str, Any]:
  """The content of a JSON file of a package."""
  shown = f'{files.printable(path)}: {name}'
  for entry, read in _entries(path):
    if entry == name:
      try:
        content = json.loads(read())
      except ValueError as error:  # JSONDecodeError, or UnicodeDecodeError
        raise ValueError(f'{shown} is no JSON: {error}') from None
      if not isinstance(content, dict):
        raise ValueError(f'{shown} is no JSON object')
      return content
  raise ValueError(f'{files.printable(path)} holds no {name}')


def _entries(path: pathlib.Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
  """(name, function that reads it) of the files at the top of a package."""
  if path.is_dir():
    for child in sorted(path.iterdir()):
      if child.is_file():
        yield child.name, child.read_bytes
    return
  with _named(path), tarfile.open(path, 'r:gz') as tarball:
    for member in tarball:
      parts = pathlib.PurePosixPath(member.name).parts  # 'package/icons.json'
      stream = tarball.extractfile(member) if len(parts) == 2 and member.isfile() else None
      if stream is not None:
        yield parts[1], functools.partial(_read, path, stream)


def _read(path: pathlib.Path, stream: IO[bytes]) -> bytes:
  with _named(path):
    return stream.read()


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
  """Turns the errors of a broken tarball into a line that names it."""
  try:
    yield
  except (tarfile.TarError, EOFError, zlib.error) as error:
    raise ValueError(f'{files.printable(path)} is no whole tarball: {error}') from None
  except OSError as error:
    if error.filename is None:  # gzip's, for what is no gzip file or has another checksum
      raise ValueError(f'{files.printable(path)} is no whole tarball: {error}') from None
    raise
