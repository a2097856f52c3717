"""Rows of a measurement: each runs alone, may fail alone, and is written to a file at once.

A file holds rows of one card and one set of versions, so that a later call goes on where this one ended.
"""

import dataclasses
import json
import pathlib
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from ctx_flax.files import printable, write_text

# Folders in messages and options: files that are published name none.
_FOLDERS = re.compile(r'(?<![\w./])/(?:[^\s/:\'"]+/)+')
MESSAGE = 600  # characters of an error that are kept


class WrongFile(Exception):
  """A file that cannot be continued; the message is one line that says why."""


@dataclasses.dataclass(frozen=True)
class Row:
  """One measurement.

  Attributes:
    name: by which a file is continued and --only chooses.
    run: measures: () -> {name of a number: number, text or list}. 'ok': False says that a result is wrong.
    seconds: about what it takes, to be left out if fewer are left.
  """

  name: str
  run: Callable[[], dict[str, Any]]
  seconds: float


class Record:
  """The rows of a file, on disk after each.

  Attributes:
    rows: {name of a row: what it measured}, in the order in which they were first recorded.
  """

  def __init__(self, path: pathlib.Path, identity: dict[str, Any]) -> None:
    """Opens a file to continue, or makes a new one with the first row.

    Args:
      path: of the JSON file.
      identity: card, versions and whatever else all rows of a file have in common.

    Raises:
      WrongFile: the file is not such a record, or was measured on another card or with other versions.
    """
    self.path, self.identity = path, identity
    self.rows: dict[str, dict[str, Any]] = {}
    if path.exists():
      self.rows = _read(path, identity)

  def has(self, name: str) -> bool:
    """Whether a row was measured without an error."""
    return name in self.rows and 'error' not in self.rows[name]

  def add(self, name: str, measured: dict[str, Any]) -> None:
    """Writes a row, in place of an older one of the same name."""
    self.rows[name] = measured
    rows = [{'name': name, **measured} for name, measured in self.rows.items()]
    write_text(self.path, json.dumps({**self.identity, 'rows': rows}, indent=1) + '\n')


def _read(path: pathlib.Path, identity: dict[str, Any]) -> dict[str, dict[str, Any]]:
  shown = printable(path)
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
    rows = {row['name']: {key: row[key] for key in row if key != 'name'} for row in content['rows']}
  except OSError as error:
    raise WrongFile(f'{shown}: cannot be read: {error.strerror}') from error
  except (ValueError, TypeError, KeyError) as error:
    raise WrongFile(f'{shown}: no file of this program; name another with --out') from error
  for key, value in identity.items():
    if content.get(key) != value:
      raise WrongFile(
        f'{shown}: its {key} is {_difference(content.get(key), value)}; rows of one file are of one card and '
        'one set of versions: name another file with --out'
      )
  return rows


def _difference(old: Any, new: Any) -> str:
  """'old, but here new', of dictionaries the entries that differ alone."""
  if isinstance(old, dict) and isinstance(new, dict):
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    old, new = ({key: each.get(key) for key in keys} for each in (old, new))
  return f'{old!r}, but here {new!r}'


@dataclasses.dataclass
class Tally:
  """What became of the rows of a call, by name; known ones were in the file before."""

  done: list[str] = dataclasses.field(default_factory=list)
  failed: list[str] = dataclasses.field(default_factory=list)
  left_out: list[str] = dataclasses.field(default_factory=list)
  known: list[str] = dataclasses.field(default_factory=list)


def run_all(
  rows: Iterable[Row],
  record: Record,
  tally: Tally,
  *,
  left: Callable[[], float],
  again: bool = False,
  after: Callable[[], object] = lambda: None,
  say: Callable[[str], None] = print,
) -> None:
  """Runs rows one after the other and records them, those with errors too.

  Args:
    rows: in the order of their importance.
    record: where they go; its rows without an error are not measured again, unless `again`.
    tally: is filled, also if the call is interrupted.
    left: seconds until the call has to end.
    after: is called after each row.
    say: prints a line.
  """
  began = time.perf_counter()
  for row in rows:
    if record.has(row.name) and not again:
      tally.known.append(row.name)
      say(f'{"":9} {row.name}: is in the file')
      continue
    if left() < row.seconds:
      tally.left_out.append(row.name)
      say(
        f'{"":9} {row.name}: left out, needs about {row.seconds:.0f} s and {max(0.0, left()):.0f} s are left'
      )
      continue
    start = time.perf_counter()
    try:
      try:
        measured = row.run()
      finally:
        after()
    except Exception as error:  # compilers, cards and PyTorch raise anything; it costs this row alone
      measured = {'error': described(error)}
    failed = 'error' in measured or measured.get('ok') is False
    (tally.failed if failed else tally.done).append(row.name)
    measured['row_s'] = round(time.perf_counter() - start, 1)
    record.add(row.name, measured)
    say(f'{time.perf_counter() - began:7.1f} s {row.name}: {summary(measured)}')


def described(error: Exception) -> str:
  """An error on one line, without the names of folders."""
  text = without_folders(' '.join(str(error).split()))
  return printable(f'{type(error).__name__}: {text}')[:MESSAGE]


def without_folders(text: str) -> str:
  """Text in which files have their names alone."""
  return _FOLDERS.sub('', text)


def summary(measured: dict[str, Any]) -> str:
  """What a row measured, on one line."""
  return ', '.join(f'{key} {_shown(value)}' for key, value in measured.items())


def table(rows: dict[str, dict[str, Any]]) -> str:
  """Rows as a table in Markdown: common columns, everything else in the last."""
  columns = 'ms', 'memory_MB', 'temp_MB', 'launches', 'compile_s'
  lines = [f'| row | {" | ".join(columns)} | |', f'|---{"|---:" * len(columns)}|---|']
  for name, measured in rows.items():
    cells = [_shown(measured.get(column, '')) for column in columns]
    rest = {key: value for key, value in measured.items() if key not in (*columns, 'best_ms', 'row_s')}
    lines.append(f'| {name} | {" | ".join(cells)} | {summary(rest).replace("|", "/")[:160]} |')
  return '\n'.join(lines)


def _shown(value: Any) -> str:
  if isinstance(value, float):
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.4g}'
  if isinstance(value, (list, tuple)):
    return ' '.join(_shown(each) for each in value)
  if isinstance(value, dict):
    return ' '.join(f'{key} {_shown(each)}' for key, each in value.items())
  return str(value)
