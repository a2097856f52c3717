"""Files that are written whole or not at all, and their names as text."""

import contextlib
import os
import pathlib
import re
import secrets
import shlex
import unicodedata
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, shared: bool = False) -> Iterator[pathlib.Path]:
  """Yields the name of a file beside `path` to write to, and renames it to `path` at the end.

  Makes the folder. If the block raises, `path` stays as it was and nothing is left beside it; a process that
  is killed leaves the file beside, which the next write replaces. If others may write the same file at the
  same time, `shared` gives each a file of its own beside it.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  own = f'.{secrets.token_hex(8)}' if shared else ''
  part = path.with_name(f'{path.name}{own}.part')
  try:
    yield part
    os.replace(part, path)
  except BaseException:
    part.unlink(missing_ok=True)
    raise


def write_text(path: str | os.PathLike[str], text: str, *, shared: bool = False) -> None:
  """Writes a text file as UTF-8, whole or not at all, and makes its folder; see `replacing`."""
  with replacing(path, shared=shared) as part:
    part.write_text(text, encoding='utf-8')


def write_bytes(path: str | os.PathLike[str], data: bytes, *, shared: bool = False) -> None:
  """Writes a file, whole or not at all, and makes its folder; see `replacing`."""
  with replacing(path, shared=shared) as part:
    part.write_bytes(data)


def utf8(name: str) -> str:
  r"""Returns a file name as text that any encoding of Unicode can hold: a byte that is no UTF-8 as '\xNN'.

  Python's names of files hold such bytes as lone surrogates, which no file or terminal takes.
  """
  return ''.join(_escaped(letter) if unicodedata.category(letter) == 'Cs' else letter for letter in name)


def printable(name: object) -> str:
  r"""Returns any text, such as a file name, as valid Unicode on one line, for messages, tables and captions.

  Letters of every script stay as they are. Bytes that are no UTF-8, line breaks and other control characters
  appear as Python writes them: '\xe9', '\n'. `unprintable` turns the result into the file name again.
  """
  return ''.join(_escaped(letter) if _breaks_lines(letter) else letter for letter in str(name))


def unprintable(text: str) -> str:
  """Returns the file name that `utf8` or `printable` shows as `text`."""
  return _ESCAPE.sub(lambda match: _unescaped(match[1]), text)


def shell_word(text: str) -> str:
  """Returns text, such as an option with a path in it, to be pasted into a shell, on one line.

  Quoted as POSIX shells want it; what `printable` escapes is quoted as bash and zsh read it, $'...'.
  """
  if printable(text) == text:
    return shlex.quote(text)
  return "$'" + printable(text.replace('\\', '\\\\').replace("'", "\\'")) + "'"


# Line and paragraph separators, control characters and surrogates; and what turns the direction of a line.
_BREAKING = ('Cc', 'Cs', 'Zl', 'Zp')
_DIRECTIONS = frozenset('\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069')
_SHORT = {'n': '\n', 'r': '\r', 't': '\t'}
_ESCAPE = re.compile(r'\\(x[0-9a-f]{2}|u[0-9a-f]{4}|[nrt])')


def _breaks_lines(letter: str) -> bool:
  return not ' ' <= letter <= '~' and (unicodedata.category(letter) in _BREAKING or letter in _DIRECTIONS)


def _escaped(letter: str) -> str:
  code = ord(letter)
  if 0xDC80 <= code <= 0xDCFF:  # what os.fsdecode makes of the byte
    return f'\\x{code - 0xDC00:02x}'
  short = [name for name, control in _SHORT.items() if control == letter]
  if short:
    return f'\\{short[0]}'
  # Control characters as \u00NN: \xNN is a byte.
  return f'\\u{code:04x}'


def _unescaped(code: str) -> str:
  if code in _SHORT:
    return _SHORT[code]
  number = int(code[1:], 16)
  return chr(0xDC00 + number) if code[0] == 'x' and number >= 0x80 else chr(number)
