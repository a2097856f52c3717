"""Which files below a folder are images (or of another kind): one answer for training, prediction and all.

Hidden files and folders and those that systems leave behind are left out, links are followed, and each real
folder is visited once, so that a link that leads back up does no harm.
"""

import collections
import dataclasses
import functools
import os
import pathlib
import stat
from collections.abc import Callable, Iterator

from ctx_flax.files import printable

# Of what Pillow reads, the formats that photographs come in; not documents, icons, films and scientific data.
FORMATS = frozenset(
  ('AVIF', 'BMP', 'DIB', 'GIF', 'JPEG', 'JPEG2000', 'MPO', 'PNG', 'PPM', 'QOI', 'TGA', 'TIFF', 'WEBP')
)
OPTIONAL = {'AVIF': 'avif', 'JPEG2000': 'jpg_2000', 'WEBP': 'webp'}  # a Pillow may be built without them
UNREADABLE = frozenset(
  ('.pfm', '.icb', '.vda', '.vst')
)  # floats without a range; of programs, not photographs
# By file managers, network drives, recycle bins, archivers and Python; names in lower case.
SYSTEM_FOLDERS = frozenset(
  (
    *('__macosx', '@eadir', '@recycle', '#recycle', '#snapshot', '$recycle.bin'),
    *('system volume information', 'lost+found', '__pycache__'),
  )
)
SYSTEM_FILES = frozenset(('thumbs.db', 'desktop.ini'))
SHOWN = 5  # names in a line that says what was left out


@functools.cache
def image_suffixes() -> tuple[str, ...]:
  """Endings of names, in lower case and with their dots, of the image files that this Pillow reads."""
  from PIL import Image, features

  suffixes = {
    suffix.lower()
    for suffix, kind in Image.registered_extensions().items()
    if kind in FORMATS and (kind not in OPTIONAL or features.check(OPTIONAL[kind]))
  }
  common = ('.jpg', '.jpeg', '.png')
  return (*common, *sorted(suffixes - UNREADABLE - set(common)))


@dataclasses.dataclass(frozen=True)
class FileKind:
  """A kind of files, told by the endings of their names.

  Attributes:
    noun: what messages call one.
    suffixes: () -> their endings, in lower case and with their dots.
  """

  noun: str
  suffixes: Callable[[], tuple[str, ...]]

  def matches(self, name: str) -> bool:
    """Whether a file of that name is taken for one."""
    return name.lower().endswith(self.suffixes()) and not is_hidden(name)


IMAGE = FileKind('image', image_suffixes)


def is_image(name: str) -> bool:
  """Whether a file of that name is taken for an image."""
  return IMAGE.matches(name)


def is_hidden(name: str) -> bool:
  """Whether a file or folder is hidden or a system's own: '.thumbs', '._1.jpg', '__MACOSX', 'Thumbs.db'."""
  return name.startswith('.') or name.lower() in SYSTEM_FOLDERS or name.lower() in SYSTEM_FILES


@dataclasses.dataclass
class LeftOut:
  """What lies below folders and is not of the kind that is looked for, to be said once.

  Attributes:
    files: how many files of each ending ('' for none) are of another kind.
    hidden: how many hidden and system files and folders of each name there are.
    links: links to folders that lead back up.
    noun: of the kind that is looked for.
  """

  files: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
  hidden: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
  links: list[str] = dataclasses.field(default_factory=list)
  noun: str = 'image'

  def lines(self) -> list[str]:
    """What was left out, a line for each kind."""
    lines = []
    if self.files:
      number = self.files.total()
      endings = [ending or 'without an ending' for ending, _ in self.files.most_common()]
      what = f'1 file that is no {self.noun}' if number == 1 else f'{number:,} files that are no {self.noun}s'
      lines.append(f'ignored {what} ({few(endings)})')
    if self.hidden:
      number = self.hidden.total()
      lines.append(
        f'ignored {number:,} hidden or system {"entry" if number == 1 else "entries"} '
        f'({few([name for name, _ in self.hidden.most_common()])})'
      )
    if self.links:
      lines.append(f'did not follow links that lead back up: {few(self.links)}')
    return lines


def counted(number: int, noun: str) -> str:
  """'1 file', '1,200 files'."""
  return f'{number:,} {noun}{"" if number == 1 else "s"}'


def few(names: list[str]) -> str:
  """The first few names, on one line, and how many more there are."""
  more = f' and {len(names) - SHOWN:,} more' if len(names) > SHOWN else ''
  return ', '.join(printable(name) for name in names[:SHOWN]) + more


def folder_exists(path: str | os.PathLike[str]) -> bool:
  """Whether a path leads to a folder. Unlike os.path.isdir it raises OSError if it cannot tell."""
  try:
    return stat.S_ISDIR(os.stat(path).st_mode)
  except (FileNotFoundError, NotADirectoryError):
    return False


def list_files(
  folder: str | os.PathLike[str], left_out: LeftOut | None = None, kind: FileKind = IMAGE
) -> list[str]:
  """Names of the files of a kind below a folder, relative to it, sorted.

  Args:
    folder: the folder.
    left_out: takes what is of another kind.
    kind: of the files.

  Raises:
    OSError: a folder cannot be read; it names the folder.
  """
  return sorted(iterate_files(folder, left_out, kind))


def iterate_files(
  folder: str | os.PathLike[str], left_out: LeftOut | None = None, kind: FileKind = IMAGE
) -> Iterator[str]:
  """Yields what `list_files` sorts, as it comes to it."""
  left_out = LeftOut() if left_out is None else left_out
  for inner, files in _walk(folder, left_out):
    for entry in files:
      # A link that leads nowhere is a file that cannot be read, and is named as such when it is.
      if kind.matches(entry.name) and (entry.is_symlink() or entry.is_file()):
        yield os.path.join(inner, entry.name)
      else:
        left_out.files[pathlib.PurePath(entry.name).suffix.lower()] += 1


def folders_below(folder: str | os.PathLike[str]) -> Iterator[str]:
  """Yields '' and the names of the folders below a folder, each real folder once and none that is hidden."""
  return (inner for inner, _ in _walk(folder, LeftOut()))


def is_folder(entry: os.DirEntry[str]) -> bool:
  """Whether an entry is a folder or leads to one; a link that cannot be followed does not."""
  try:
    return entry.is_dir()
  except OSError:  # a link to itself, say
    return False


def leads_up(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
  """Whether a path is the folder itself, or one that holds it."""
  return _identity(path) in _folders_above(folder)


def _walk(folder: str | os.PathLike[str], left_out: LeftOut) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
  """Yields (path relative to the folder, entries that are no folders), real folders before links to them."""
  above = _folders_above(folder)
  visited: set[tuple[int, int]] = set()
  waiting, links = [''], collections.deque[str]()
  while waiting or links:
    inner = waiting.pop() if waiting else links.popleft()
    path = os.path.join(folder, inner) if inner else folder
    identity = _identity(path)
    if inner and identity in above:
      left_out.links.append(inner)
      continue
    if identity in visited:
      continue
    visited.add(identity)
    files: list[os.DirEntry[str]] = []
    with os.scandir(path) as opened:
      entries = sorted(opened, key=lambda entry: entry.name)  # which of two links is followed must not vary
    folders = []
    for entry in entries:
      if is_hidden(entry.name):
        left_out.hidden[entry.name] += 1
      elif not is_folder(entry):
        files.append(entry)
      elif entry.is_symlink():
        links.append(os.path.join(inner, entry.name))
      else:
        folders.append(os.path.join(inner, entry.name))
    waiting += reversed(folders)
    yield inner, files


def _folders_above(folder: str | os.PathLike[str]) -> set[tuple[int, int]]:
  """Identities of a folder and of all that hold it."""
  real = pathlib.Path(os.path.realpath(folder))
  return {_identity(path) for path in (real, *real.parents)}


def _identity(path: str | os.PathLike[str]) -> tuple[int, int]:
  status = os.stat(path)
  return status.st_dev, status.st_ino
