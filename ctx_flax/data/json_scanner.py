"""JSON a value at a time, and where in the file each stands: large lists are never in memory as a whole."""

import json
import re
from collections.abc import Iterator
from typing import Any

EXTRA = 'more text after its end'
SPACE = re.compile(r'[ \t\r\n]*')


class Scanner:
  """Reads JSON a value at a time, and says where each stands. All methods raise json.JSONDecodeError."""

  def __init__(self, text: str) -> None:
    self._text, self._place = text, 0
    self._decode = json.JSONDecoder().raw_decode
    self._ascii = text.isascii()

  def bytes_between(self, start: int, end: int) -> int:
    """The length of a part in the file."""
    if self._ascii:
      return end - start
    return len(self._text[start:end].encode('utf-8', 'surrogateescape'))

  def value(self) -> Any:
    """The value from here on."""
    self._skip_space()
    value, self._place = self._decode(self._text, self._place)
    return value

  def items(self) -> Iterator[tuple[Any, int, int]]:
    """Yields (value, start, end) of each item of the list from here on."""
    self._expect('[')
    if self._skip(']'):
      return
    while True:
      self._skip_space()
      start = self._place
      yield self.value(), start, self._place
      if self._skip(']'):
        return
      self._expect(',')

  def members(self) -> Iterator[str]:
    """Yields the keys of the object that is the whole text; who gets one has to read its value."""
    self._expect('{')
    if not self._skip('}'):
      while True:
        key = self.value()
        self._expect(':')
        yield key
        if self._skip('}'):
          break
        self._expect(',')
    self._skip_space()
    if self._place < len(self._text):
      raise json.JSONDecodeError(EXTRA, self._text, self._place)

  def _skip_space(self) -> None:
    match = SPACE.match(self._text, self._place)
    assert match is not None
    self._place = match.end()

  def _skip(self, character: str) -> bool:
    self._skip_space()
    matches = self._text.startswith(character, self._place)
    self._place += matches
    return matches

  def _expect(self, character: str) -> None:
    if not self._skip(character):
      raise json.JSONDecodeError(f'no {character!r}', self._text, self._place)
