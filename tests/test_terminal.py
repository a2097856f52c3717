"""The width of what is printed for people: the terminal's, or one that can be read."""

import io
import os

import pytest

from ctx_flax import terminal


class Terminal(io.StringIO):
  def isatty(self):
    return True

  def fileno(self):
    return 1


@pytest.mark.parametrize(
  'columns, of_terminal, width',
  [
    ('', 120, 120),
    ('', 0, 80),
    ('0', 120, 120),
    ('0', 0, 80),
    ('100', 120, 100),
    ('1', 3, 80),
    ('x', 50, 50),
  ],
)
def test_width_of_a_terminal(monkeypatch, columns, of_terminal, width):
  monkeypatch.setenv('COLUMNS', columns)
  monkeypatch.setattr(os, 'get_terminal_size', lambda number: os.terminal_size((of_terminal, 0)))
  stream = Terminal()
  console = terminal.console(stream)
  assert console.width == width
  console.print('a word')
  assert 'a word' in stream.getvalue()


@pytest.mark.parametrize('columns', ['0', '200'])
def test_what_is_no_terminal_has_a_width_of_its_own(monkeypatch, columns):
  """COLUMNS is about the terminal: a file must not depend on it."""
  monkeypatch.setenv('COLUMNS', columns)
  assert terminal.console(io.StringIO()).width == 80
  assert terminal.console(io.StringIO(), width=100).width == 100


def test_a_terminal_that_cannot_be_asked(monkeypatch):
  monkeypatch.delenv('COLUMNS', raising=False)

  def refuse(number):
    raise OSError(25, 'Inappropriate ioctl for device')

  monkeypatch.setattr(os, 'get_terminal_size', refuse)
  assert terminal.console(Terminal()).width == 80
