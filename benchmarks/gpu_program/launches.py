"""What a compiled program launches on a GPU: read from XLA's optimised program text."""

import dataclasses
import re
from collections.abc import Iterable

# Instructions that are no work of the card.
FREE = {
  'parameter',
  'constant',
  'bitcast',
  'get-tuple-element',
  'tuple',
  'after-all',
  'partition-id',
  'replica-id',
  'copy-done',
  'async-done',
  'fusion-done',
  'all-reduce-done',
}
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'(?:ROOT )?%?([\w.\-]+) = (.*?) ([\w\-]+)\(')
_CALLED = re.compile(r'(?:body|to_apply|true_computation|false_computation|calls)=%?([\w.\-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')

_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_SHAPE = re.compile(r'(pred|[a-z]+\d+\w*)\[([\d,]*)\]')
_BITS = re.compile(r'\d+')


@dataclasses.dataclass(frozen=True)
class Launch:
  """One instruction that the card executes, `times` times in a run of the program.

  Attributes:
    name, opcode: of the instruction.
    kind: of a fusion kLoop, kInput, ...; of a custom call its target.
    shape: of the result, as XLA writes it.
    origin: jax's path of names to the operation, '' where XLA made it up.
    times: product of the turns of the loops around it.
  """

  name: str
  opcode: str
  kind: str
  shape: str
  origin: str
  times: int

  @property
  def bytes(self) -> int:
    """Size of the result."""
    return sum(_size(dtype, dims) for dtype, dims in _SHAPE.findall(self.shape))


def launches(text: str) -> list[Launch]:
  """Everything that a run of the program launches. Of the branches of a condition the longest counts.

  Raises:
    ValueError: a loop whose number of turns XLA does not know.
  """
  computations, entry = _computations(text)
  return _walk(computations, entry, 1)


def count(found: Iterable[Launch]) -> int:
  """How many kernels, copies and library calls that is."""
  return sum(launch.times for launch in found)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  """({name: lines of its instructions}, name of the entry)."""
  computations: dict[str, list[str]] = {}
  entry, lines = '', None
  for line in text.splitlines():
    header = _COMPUTATION.match(line)
    if header:
      lines = computations[header[2]] = []
      entry = header[2] if header[1] else entry
    elif line.startswith('}'):
      lines = None
    elif lines is not None and ' = ' in line:
      lines.append(line.strip())
  return computations, entry


def _walk(computations: dict[str, list[str]], name: str, times: int) -> list[Launch]:
  found = []
  for line in computations[name]:
    match = _INSTRUCTION.match(line)
    if not match or match[3] in FREE:
      continue
    instruction, shape, opcode = match.groups()
    if opcode == 'while':
      turns = _TURNS.search(line)
      if not turns:
        raise ValueError(f'{instruction}: a loop of an unknown number of turns cannot be counted')
      (body,) = re.findall(r'body=%?([\w.\-]+)', line)
      found += _walk(computations, body, times * int(turns[1]))
      continue
    if opcode == 'conditional':
      listed = _BRANCHES.search(line)
      names = re.findall(r'[\w.\-]+', listed[1]) if listed else _CALLED.findall(line)
      found += max((_walk(computations, branch, times) for branch in names), key=count)
      continue
    if opcode in ('call', 'async-start'):
      for called in _CALLED.findall(line):
        found += _walk(computations, called, times)
      continue
    kind = re.search(r'kind=(\w+)', line) or re.search(r'custom_call_target="([^"]+)"', line)
    origin = re.search(r'op_name="([^"]*)"', line)
    found.append(
      Launch(instruction, opcode, kind[1] if kind else '', shape, origin[1] if origin else '', times)
    )
  return found


def _size(dtype: str, dims: str) -> int:
  elements = 1
  for dim in dims.split(','):
    elements *= int(dim) if dim else 1
  bits = _BITS.search(dtype)
  return elements * (int(bits[0]) // 8 if bits and int(bits[0]) >= 8 else 1)
