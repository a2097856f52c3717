"""The recorded table: what each program launched and kept, by card and by XLA's compiler."""

import dataclasses
import json
import pathlib
from typing import Any

from ctx_flax.files import write_text

FILE = pathlib.Path(__file__).parents[1] / 'gpu_program.json'
# Temporary memory may grow by this much before it counts: buffers are packed in an order of their own.
TOLERANCE = 1.02


@dataclasses.dataclass(frozen=True)
class Numbers:
  """What one program needs.

  Attributes:
    launches: kernels, copies and library calls of a run.
    temp_bytes: temporary memory beside arguments and results, by the compiler's own count.
    causes: {part of the network: launches}.
    compile_seconds: on the machine that recorded it; no measure of anything else.
  """

  launches: int
  temp_bytes: int
  causes: dict[str, int]
  compile_seconds: float


class Record:
  """The table of one card and compiler in a file that holds several.

  Attributes:
    rows: {name of the program: Numbers}.
  """

  def __init__(self, card: str, compiler: str, file: pathlib.Path = FILE):
    self._file, self._key = file, (card, compiler)
    table = self._tables().get(card, {}).get(compiler, {})
    self.rows = {name: Numbers(**numbers) for name, numbers in table.items()}

  def write(self, name: str, numbers: Numbers) -> None:
    """Adds or replaces one row; the file is whole at every moment."""
    self.rows[name] = numbers
    tables = self._tables()
    card, compiler = self._key
    tables.setdefault(card, {})[compiler] = {key: dataclasses.asdict(row) for key, row in self.rows.items()}
    write_text(self._file, json.dumps(tables, indent=1) + '\n')

  def _tables(self) -> dict[str, dict[str, Any]]:
    return json.loads(self._file.read_text()) if self._file.exists() else {}


def complaint(numbers: Numbers, recorded: Numbers | None) -> str:
  """What has become worse, in words; '' if nothing has."""
  if recorded is None:
    return 'not recorded for this compiler: --record'
  worse = []
  if numbers.launches > recorded.launches:
    worse.append(f'{numbers.launches:,} launches instead of {recorded.launches:,}')
  if numbers.temp_bytes > TOLERANCE * recorded.temp_bytes:
    worse.append(f'{numbers.temp_bytes / 1e6:,.1f} MB instead of {recorded.temp_bytes / 1e6:,.1f}')
  return ', '.join(worse)
