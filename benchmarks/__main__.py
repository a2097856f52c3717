"""python -m benchmarks: candidates side by side on the machine at hand, or one of two programs for GPUs."""

import importlib
import sys
from collections.abc import Sequence

# Each needs fewer packages than the others, so none imports another.
PROGRAMS = {'gpu': 'benchmarks.gpu.program', 'gpu_program': 'benchmarks.gpu_program.program'}
CANDIDATES = 'benchmarks.candidates'


def main(arguments: Sequence[str] | None = None) -> int | None:
  """Runs the program that the first argument names, by default the candidates; returns its exit status."""
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  name = arguments[0] if arguments else ''
  program = importlib.import_module(PROGRAMS.get(name, CANDIDATES))
  return program.main(arguments[1:] if name in PROGRAMS else arguments)


if __name__ == '__main__':
  sys.exit(main())
