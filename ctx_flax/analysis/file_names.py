"""The image files that somebody names: files, folders, globs and lists of names. Any name can be given."""

import fnmatch
import os
import pathlib
from collections.abc import Callable, Iterator

from ctx_flax.data import image_files
from ctx_flax.data.image_files import IMAGE, FileKind
from ctx_flax.files import printable, unprintable


def find_files(text: str, warn: Callable[[str], None] | None = None, kind: FileKind = IMAGE) -> list[str]:
  """The image files that `text` names: files, folders (with all below them) and globs, between commas.

  A name that exists wins over what its letters mean: over commas that separate, over brackets and stars of a
  glob, and over a blank at an end. `~` is the home folder. What `printable` shows of a name names it too.
  Of a folder or a glob, hidden files and folders are left out, and each real folder is visited once.

  Args:
    text: as said.
    warn: is told in a line what of folders was left out, if anything.
    kind: of the files, instead of images.

  Returns:
    Paths in the order given, those of a folder or glob sorted; each once.

  Raises:
    ValueError: nothing is named, or a name that leads to no file.
    OSError: a folder cannot be read; names it.
  """
  files: dict[str, None] = {}
  for name in _names(text):
    files |= dict.fromkeys(_files_of(name, warn, kind))
  if not files:
    raise ValueError(f'no {kind.noun}s are named: give files, folders or globs, separated by commas')
  return list(files)


def listed_files(path: str, warn: Callable[[str], None] | None = None, kind: FileKind = IMAGE) -> list[str]:
  """The image files that a file names: one name in a line, or separated by NUL bytes if it holds any.

  The names are taken as they stand, of files and folders, relative to the working folder; empty ones are
  passed over.

  Args:
    path: of the list; /dev/stdin is one.
    warn, kind: as for `find_files`.

  Raises:
    ValueError: no name, or one that leads to no file, told with its place.
    OSError: the list cannot be read; names it.
  """
  with open(os.path.expanduser(path), 'rb') as file:
    content = file.read().removeprefix(b'\xef\xbb\xbf')
  unit, separator = ('name', b'\0') if b'\0' in content else ('line', b'\n')
  files: dict[str, None] = {}
  for number, raw in enumerate(content.split(separator), 1):
    name = os.fsdecode(raw)
    if not name.strip('\r' if unit == 'line' else ''):
      continue
    existing = next((known for known in (name, name.removesuffix('\r')) if _existing(known)), '')
    if not existing:
      raise ValueError(f"{printable(path)}, {unit} {number}: '{printable(name)}' leads to no file")
    files |= dict.fromkeys(_files_of(existing, warn, kind))
  if not files:
    raise ValueError(f'{printable(path)} names no {kind.noun}s')
  return list(files)


def _names(text: str) -> Iterator[str]:
  """The names between commas, those that hold commas themselves whole if they exist."""
  if _existing(text):
    yield text
    return
  parts = text.split(',')
  first = 0
  while first < len(parts):
    last = first + 1
    if not any(_existing(part) for part in (parts[first], parts[first].strip())):
      joined = range(first + 2, len(parts) + 1)
      last = next((end for end in joined if _existing(','.join(parts[first:end]).strip())), last)
    name = ','.join(parts[first:last])
    if name.strip():
      yield name if _existing(name) else name.strip()
    first = last


def _existing(name: str) -> str:
  """The path that a name means literally, '' if there is no such file or folder."""
  if not name or '\0' in name:
    return ''
  meanings = (name, os.path.expanduser(name), unprintable(name))
  return next((path for path in meanings if os.path.exists(path)), '')


def _files_of(name: str, warn: Callable[[str], None] | None, kind: FileKind) -> list[str]:
  path = _existing(name)
  if not path:
    files = sorted(set(_matches('', os.path.expanduser(name))))
    if not files:
      raise ValueError(f"'{printable(name)}' leads to no file")
    return files
  if not os.path.isdir(path):
    return [str(pathlib.Path(path))]
  left_out = image_files.LeftOut(noun=kind.noun)
  folder = str(pathlib.Path(path))
  files = [os.path.join(folder, file) for file in image_files.list_files(folder, left_out, kind)]
  if not files:
    endings = ' '.join(kind.suffixes())
    raise ValueError(f"'{printable(name)}' holds no {kind.noun} files ({endings})")
  if warn is not None:
    for line in left_out.lines():
      warn(f'{printable(folder)}: {line}')
  return files


def _matches(base: str, pattern: str) -> Iterator[str]:
  """The files that a glob leads to from a folder ('' is the working one): as glob.glob finds them, but that a
  part which exists as it stands is no pattern, and that no folder is visited twice."""
  part, _, rest = pattern.partition('/')
  if base and not os.path.isdir(base):
    return
  if not part:  # of an absolute path, or a second slash
    if rest:
      yield from _matches(base or '/', rest)
    return
  if part == '**':
    for inner in image_files.folders_below(base or '.'):
      yield from _matches(os.path.join(base, inner) if inner else base, rest or '*')
    return
  if os.path.exists(os.path.join(base, part)):
    names = [part]
  elif any(letter in part for letter in '*?['):
    try:
      names = os.listdir(base or '.')
    except OSError:  # as glob.glob does: of what it may not read it finds nothing
      return
    hidden = part.startswith('.')
    names = [name for name in names if hidden or not image_files.is_hidden(name)]
    names = fnmatch.filter(names, part)
  else:
    return
  for name in names:
    path = os.path.join(base, name)
    if rest:
      yield from _matches(path, rest)
    elif os.path.isfile(path):
      yield path
