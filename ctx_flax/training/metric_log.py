"""What a run writes about its steps: metrics.jsonl and TensorBoard events."""

import itertools
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

from ctx_flax.files import write_bytes


class MetricLog:
  """Writes metrics to workdir/metrics.jsonl, one object a line, and to TensorBoard events in workdir/events.

  Args:
    workdir: the folder of the run.
    step: the step at which the run goes on; what is there of later steps is cut off or marked as void.
    active: False writes nothing; of several processes one writes.
  """

  def __init__(self, workdir: str | os.PathLike[str], step: int, active: bool = True):
    self._active = active
    if not active:
      return
    path = pathlib.Path(workdir) / 'metrics.jsonl'
    (path.parent / 'events').mkdir(parents=True, exist_ok=True)
    cut_back(path, step)
    self._lines = path.open('a', encoding='utf-8')
    # Not tensorboardX's writers: what waits in their queue is lost when the process is killed, and they put
    # the machine's name into that of the file. With the step in it a run that is resumed within a second does
    # not take the name of its earlier file.
    name = f'events.out.tfevents.{int(time.time())}.from{step}'
    self._events = RecordWriter(str(path.parent / 'events' / name))
    self._event(0, file_version='brain.Event:2')
    # TensorBoard hides the earlier files' events from this step on.
    self._event(step + 1, session_log=SessionLog(status=SessionLog.START))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Adds the values {name: float} of a step; on the disk when this returns."""
    if not self._active:
      return
    # JSON has no infinity: a value that is not finite is null there.
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    print(json.dumps({'step': step} | finite, allow_nan=False), file=self._lines, flush=True)
    for name, value in values.items():
      if not math.isnan(value):  # such as a precision of objects that there are none of
        self._event(step, summary=scalar(name, value))
    self._events.flush()

  def _event(self, step: int, **content: Any) -> None:
    self._events.write(Event(wall_time=time.time(), step=step, **content).SerializeToString())

  def close(self) -> None:
    if self._active:
      self._lines.close()
      self._events.close()

  def __enter__(self) -> 'MetricLog':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def read_lines(path: str | os.PathLike[str]) -> tuple[list[tuple[bytes, dict[str, Any]]], dict[int, bytes]]:
  """Reads a metrics.jsonl; a last line without its end, as a killed run leaves it, is left out.

  Returns:
    ([(line, its object), ...], {number of a damaged line, from 1: the line}); both empty if there is no file.
  """
  path = pathlib.Path(path)
  *lines, _ = path.read_bytes().split(b'\n') if path.exists() else [b'']
  good, damaged = [], {}
  for number, line in enumerate(lines, 1):
    try:
      values = json.loads(line)
      if not isinstance(values['step'], int):
        raise ValueError('a step is a number')
    except (ValueError, TypeError, KeyError):  # not UTF-8, no JSON, no object, no step
      damaged[number] = line
    else:
      good.append((line, values))
  return good, damaged


def cut_back(path: pathlib.Path, step: int, warn: Callable[[str], object] = print) -> None:
  """Drops the lines of later steps than `step`, and an unfinished last line, atomically.

  Damaged lines before them go to metrics.jsonl.damaged, and `warn` is told so in one line.
  """
  if not path.exists():
    return
  good, damaged = read_lines(path)
  kept = itertools.takewhile(lambda line: line[1]['step'] <= step, good)
  if damaged:
    aside = path.with_name(f'{path.name}.damaged')
    with aside.open('ab') as file:
      file.write(b''.join(line + b'\n' for line in damaged.values()))
    warn(f'{described(path, damaged)}, moved to {aside}')
  write_bytes(path, b''.join(line + b'\n' for line, _ in kept))


def described(path: str | os.PathLike[str], damaged: Iterable[int]) -> str:
  """'RUN/metrics.jsonl: line 3 is damaged', of the numbers of damaged lines."""
  numbers = ', '.join(map(str, damaged))
  return f'{path}: line {numbers} is damaged' if numbers.isdigit() else f'{path}: lines {numbers} are damaged'
