"""python -m benchmarks gpu_program   what XLA makes for a GPU, without one: launches and memory

Compiles operations and networks for a named card and sets launches and temporary memory beside the recorded
ones (benchmarks/gpu_program.json). Nothing runs, and nothing is tuned: no times follow from it. Needs XLA's
compiler for CUDA, the extra gpu-program. All rows take most of an hour on two cores, those of --check a few
minutes.
"""

import argparse
import os
import re
import time
from collections.abc import Sequence

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # XLA misses data of a card that is not there

from benchmarks.gpu_program import target
from benchmarks.gpu_program.causes import by_cause, largest
from benchmarks.gpu_program.launches import count, launches
from benchmarks.gpu_program.record import Numbers, Record, complaint
from benchmarks.options import pattern


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the program; returns its exit status: 1 if --check found a row that is worse than its record."""
  chosen = parse(arguments)
  try:
    compiler = target.compiler()
  except target.NotInstalled as error:
    raise SystemExit(f'error: {error}') from None
  target.without_devices()
  from benchmarks.gpu_program import programs  # not before: it touches jax's devices

  rows = [
    row for row in programs.programs() if chosen.only.search(row.name) and (row.held or not chosen.check)
  ]
  if not rows:
    raise SystemExit(f'error: --only={chosen.only.pattern!r} fits no row: --list names them')
  if chosen.list:
    print('\n'.join(row.name for row in rows))
    return 0
  description = target.CARDS[chosen.card][0]
  print(f'{description}, {compiler}: launches and temporary memory, in brackets as recorded', flush=True)
  record, worse = Record(chosen.card, compiler), []
  for row in rows:
    function, *shapes = row.make()
    numbers, buffers = numbers_of(chosen.card, function, *shapes)
    recorded = record.rows.get(row.name)
    print(line(row.name, numbers, recorded), flush=True)
    if not chosen.brief:
      print(details(numbers, buffers), flush=True)
    if chosen.check and (words := complaint(numbers, recorded)):
      worse.append(f'{row.name}: {words}')
    if chosen.record:
      record.write(row.name, numbers)
  for words in worse:
    print(f'error: {words}', flush=True)
  return 1 if worse else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks gpu_program',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--card', choices=sorted(target.CARDS), default='h100', help='(h100)')
  parser.add_argument('--only', type=pattern, default=re.compile(''), metavar='REGEX', help='names of rows')
  parser.add_argument('--brief', action='store_true', help='no launches by cause, no largest results')
  parser.add_argument(
    '--check', action='store_true', help='the quick rows: fail if one needs more than recorded'
  )
  parser.add_argument('--record', action='store_true', help='write the rows into the recorded table')
  parser.add_argument('--list', action='store_true', help='print the names of rows alone')
  chosen = parser.parse_args(arguments)
  if chosen.check and chosen.record:
    parser.error('--check compares with the table that --record writes: take one of them')
  return chosen


def numbers_of(card, function, *shapes) -> tuple[Numbers, list[str]]:
  """What a program needs on a card, and its largest results."""
  began = time.perf_counter()
  compiled = target.compile_for(card, function, *shapes)
  seconds = time.perf_counter() - began
  found = launches(compiled.as_text())
  temp_bytes = compiled.memory_analysis().temp_size_in_bytes
  return Numbers(count(found), temp_bytes, by_cause(found), round(seconds, 1)), largest(found)


def line(name: str, numbers: Numbers, recorded: Numbers | None) -> str:
  launched, memory = f'{numbers.launches:,}', f'{numbers.temp_bytes / 1e6:,.1f} MB'
  if recorded:
    launched += f' ({recorded.launches:,})'
    memory += f' ({recorded.temp_bytes / 1e6:,.1f} MB)'
  return f'{name}: {launched}, {memory}; compiled in {numbers.compile_seconds:.0f} s'


def details(numbers: Numbers, buffers: list[str]) -> str:
  causes = ', '.join(f'{cause} {launched:,}' for cause, launched in numbers.causes.items())
  return '\n'.join([f'  by cause: {causes}', *(f'  {words}' for words in buffers)])
