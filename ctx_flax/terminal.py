"""Tables and progress for people: a console of a width that can be read."""

import os
import sys
from typing import TextIO

import rich.console

WIDTH = 80  # of what is no terminal, or of a terminal that does not say how wide it is
LEAST = 20  # columns; a narrower terminal is one that does not know its width


def console(stream: TextIO | None = None, width: int = WIDTH) -> rich.console.Console:
  """A rich console on a stream, the standard output by default.

  It is as wide as the terminal. `width` holds for what is no terminal, and for a terminal (or the variable
  COLUMNS) that tells no width that a line could have: 0, as in some containers and under some schedulers,
  would print nothing.
  """
  stream = sys.stdout if stream is None else stream
  return rich.console.Console(file=stream, width=_width(stream) or width)


def _width(stream: TextIO) -> int:
  """The columns of a terminal; 0 if it is none or does not say."""
  if not stream.isatty():
    return 0
  columns = os.environ.get('COLUMNS', '')
  if columns.isascii() and columns.isdigit() and int(columns) >= LEAST:
    return int(columns)
  try:
    columns_of_terminal = os.get_terminal_size(stream.fileno()).columns
  except (OSError, ValueError):
    return 0
  return columns_of_terminal if columns_of_terminal >= LEAST else 0
