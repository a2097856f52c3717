"""python -m benchmarks [ops] [models] [classes] [scan] [train] [input]   time, throughput and memory
python -m benchmarks gpu           correctness, time and memory on an NVIDIA GPU; see its --help
python -m benchmarks gpu_program   what XLA makes for an NVIDIA GPU, without one; see its --help

parts:
  ops      the operations at the shapes of the networks, by path, and those of detectors
  models   inference of networks, contextual beside plain and beside PyTorch, and on clips
  classes  the selection of classes, by the number of classes
  scan     scanned blocks beside blocks one after the other
  train    training steps, with and without rematerialisation
  input    reading, decoding and transforming images and clips

Candidates take turns in one run; 'x' and 'of ...' are medians over the rounds of their ratios, which other
users of the machine disturb less than times. Temporary memory is the compiler's own count. The share of the
device's peak is of the work that any way of computing the same has to do.
"""

import argparse
import dataclasses
import importlib
import json
import pathlib
import sys

import jax

from benchmarks import machine

PARTS = 'ops', 'models', 'classes', 'scan', 'train', 'input'  # modules with run(settings)


@dataclasses.dataclass(frozen=True)
class Settings:
  """What all benchmarks share: images of a step, side of an image, dtype, rounds, limits of the device."""

  batch: int
  image_size: int
  dtype: str
  rounds: int
  peak: machine.Peak


def main(arguments=None):
  chosen = parse(arguments)
  import rich.console  # no need of it to ask for help

  # Compile times are to be those of a first run.
  jax.config.update('jax_enable_compilation_cache', False)
  peak = machine.peak(chosen.dtype, chosen.peak_flops, chosen.peak_bytes)
  settings = Settings(chosen.batch, chosen.image_size, chosen.dtype, chosen.rounds, peak)
  found = {'machine': machine.describe(), 'settings': dataclasses.asdict(settings)}
  about = found['machine']
  print(
    f'{about["device"]} ({about["processor"]}, {about["cores"]} cores), jax {about["versions"]["jax"]}, '
    f'{chosen.dtype}; peak {peak.flops / 1e9:,.0f} GFLOP/s, {peak.bandwidth / 1e9:,.0f} GB/s ({peak.source})',
    flush=True,
  )
  for part in chosen.parts or PARTS:
    found[part] = importlib.import_module(f'benchmarks.{part}').run(settings)
    # As wide as it needs to be where nobody's screen ends.
    rich.console.Console(width=None if sys.stdout.isatty() else 240).print(table(part, found[part]))
    if chosen.json:  # after each part: the next ones may take long
      chosen.json.write_text(json.dumps(found, indent=2) + '\n')


def parse(arguments):
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  # Not choices=: argparse would refuse an empty list.
  parser.add_argument('parts', nargs='*', metavar='PART', help=f'of {", ".join(PARTS)}; by default all')
  parser.add_argument('--json', type=pathlib.Path, help='file to write the numbers, versions and hardware to')
  parser.add_argument('--batch', type=int, default=8, help='images of a step (8)')
  parser.add_argument('--image_size', type=int, default=224, help='side of an image (224)')
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32', help='(float32)')
  parser.add_argument('--rounds', type=int, default=15, help='turns of each candidate (15)')
  parser.add_argument('--peak_flops', type=float, default=0, help="the device's FLOP/s, if it is not known")
  parser.add_argument('--peak_bytes', type=float, default=0, help="the device's bytes/s, if it is not known")
  chosen = parser.parse_args(arguments)
  for part in chosen.parts:
    if part not in PARTS:
      parser.error(f'unknown part {part!r}: expected of {", ".join(PARTS)}')
  for name in ('batch', 'image_size', 'rounds'):
    if getattr(chosen, name) < 1:
      parser.error(f'--{name} must be 1 or more, but is {getattr(chosen, name)}')
  return chosen


def table(title, rows):
  """A table of the columns of all rows, numbers to three digits."""
  columns = list(dict.fromkeys(name for row in rows for name in row))
  import rich.table

  drawn = rich.table.Table(title=title)
  for i, name in enumerate(columns):
    drawn.add_column(name.strip(), justify='right' if i and isinstance(rows[0].get(name), float) else 'left')
  for row in rows:
    drawn.add_row(*(_shown(row.get(name, '')) for name in columns))
  return drawn


def _shown(value):
  if isinstance(value, float):
    return f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'
  return str(value)
