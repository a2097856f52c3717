"""python -m benchmarks gpu   correctness, time and memory on an NVIDIA GPU, row by row into a file

Rows run in the order of their importance; the file is written after each, and a later call with the same file
goes on where this one ended. One that fails costs itself alone. PyTorch's rows appear where it is installed.
--deterministic measures the gradients that scatter, with XLA's deterministic operations: their price is the
ratio to the rows of a call without.
"""

import argparse
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.gpu.rows import Record, Row, Tally, WrongFile, run_all, table
from benchmarks.options import pattern

DETERMINISTIC = '--xla_gpu_deterministic_ops=true'


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the program; returns its exit status: 1 if a row failed or a result is wrong, 130 if interrupted."""
  chosen = parse(arguments)
  prepare(chosen.deterministic)
  # Not at the top of the file: jax reads these variables.
  from benchmarks.gpu import catalogue, peers
  from benchmarks.gpu.sizes import FULL, SMOKE

  rows = (catalogue.deterministic_rows if chosen.deterministic else catalogue.all_rows)(
    SMOKE if chosen.smoke else FULL
  )
  rows = [row for row in rows if chosen.only.search(row.name)]
  if not rows:
    raise SystemExit(f'--only={chosen.only.pattern!r} fits no row: --list names them')
  if chosen.list:
    print('\n'.join(row.name for row in rows))
    return 0
  record = _open(chosen)
  if peers.missing():
    print(
      f'rows beside PyTorch are left out where they need what is not installed: {", ".join(peers.missing())}'
    )
  return _measure(rows, record, chosen, peers.forget)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks gpu', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--out', type=pathlib.Path, default=pathlib.Path('gpu.json'), help='JSON file (gpu.json)'
  )
  parser.add_argument('--only', type=pattern, default=re.compile(''), metavar='REGEX', help='names of rows')
  parser.add_argument('--seconds', type=float, default=float('inf'), help='what needs more is left out')
  parser.add_argument('--again', action='store_true', help='measure rows anew that the file has')
  parser.add_argument('--deterministic', action='store_true', help='the rows whose gradients scatter')
  parser.add_argument('--smoke', action='store_true', help='tiny sizes on any device: a first look')
  parser.add_argument('--list', action='store_true', help='print the names of rows alone')
  return parser.parse_args(arguments)


def prepare(deterministic: bool) -> None:
  """Sets the variables that jax reads when it is imported or first uses a device."""
  environment = os.environ
  environment.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch needs memory too
  platforms = environment.get('JAX_PLATFORMS', '')
  if platforms and 'cpu' not in platforms.split(','):
    environment['JAX_PLATFORMS'] = f'{platforms},cpu'  # which results are compared with
  flags = environment.get('XLA_FLAGS', '')
  if deterministic and DETERMINISTIC not in flags.split():
    if 'jax' in sys.modules:
      raise SystemExit(f'--deterministic: jax runs already; start with XLA_FLAGS={DETERMINISTIC}')
    environment['XLA_FLAGS'] = f'{flags} {DETERMINISTIC}'.strip()


def _open(chosen: argparse.Namespace) -> Record:
  """The file to continue; leaves the program with one line where there is no GPU or no such file."""
  import jax

  from benchmarks.gpu import card

  try:
    device = jax.devices()[0]
  except RuntimeError as error:  # JAX_PLATFORMS names one that is not here
    raise SystemExit(f'no device: {" ".join(str(error).split())}') from error
  if device.platform != 'gpu' and not chosen.smoke:
    raise SystemExit(
      f'no GPU: the first device of jax is {device.device_kind!r} ({device.platform}); install '
      'jax[cuda12] or jax[cuda13], or look at the program with --smoke'
    )
  if not chosen.smoke:
    # Compile times are to be those of a first run.
    jax.config.update('jax_enable_compilation_cache', False)
  try:
    return Record(chosen.out, card.identity(chosen.smoke, [DETERMINISTIC] if chosen.deterministic else []))
  except WrongFile as error:
    raise SystemExit(str(error)) from error


def _measure(rows: list[Row], record: Record, chosen: argparse.Namespace, after: Callable[[], object]) -> int:
  began, tally, interrupted = time.monotonic(), Tally(), False
  try:
    run_all(
      rows,
      record,
      tally,
      left=lambda: chosen.seconds - (time.monotonic() - began),
      again=chosen.again,
      after=after,
      say=lambda line: print(line, flush=True),
    )
  except KeyboardInterrupt:
    interrupted = True
  of_these = {row.name: record.rows[row.name] for row in rows if row.name in record.rows}
  print(f'\n{table(of_these)}\n')
  wrong = [name for name, measured in of_these.items() if 'error' in measured or measured.get('ok') is False]
  for name in wrong:
    print(f'failed: {name}')
  print(
    f'{"interrupted: " if interrupted else ""}{len(tally.done)} rows measured, {len(tally.failed)} failed, '
    f'{len(tally.left_out)} left out, '
    f'{len(tally.known)} in {chosen.out} before; {time.monotonic() - began:.0f} s'
  )
  return 130 if interrupted else int(bool(wrong))
