"""What a run tells: metrics.jsonl, TensorBoard events, and the progress on the screen."""

import json
import math
import os
import pathlib
import sys
import time

import rich.console
import rich.progress
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

LINES = 20  # of progress in a whole run, where the output is no terminal


class MetricLog:
  """Writes metrics to workdir/metrics.jsonl, one object a line, and to TensorBoard events in workdir/events.

  Args:
    workdir: the folder of the run.
    step: the step at which the run goes on; what is there of later steps is cut off or marked as void.
    active: False writes nothing; of several processes one writes.
  """

  def __init__(self, workdir, step, active=True):
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

  def write(self, step, values):
    """Adds the values {name: float} of a step; on the disk when this returns."""
    if not self._active:
      return
    # JSON has no infinity: a value that is not finite is null there.
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    print(json.dumps({'step': step} | finite, allow_nan=False), file=self._lines, flush=True)
    for name, value in values.items():
      self._event(step, summary=scalar(name, value))
    self._events.flush()

  def _event(self, step, **content):
    self._events.write(Event(wall_time=time.time(), step=step, **content).SerializeToString())

  def close(self):
    if self._active:
      self._lines.close()
      self._events.close()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()


def cut_back(path, step):
  """Drops the lines of later steps than `step`, and an unfinished last line, atomically."""
  if not path.exists():
    return
  kept = []
  for line in path.read_text(encoding='utf-8').splitlines(keepends=True):
    try:
      if not line.endswith('\n') or json.loads(line)['step'] > step:
        break
    except ValueError:
      break
    kept.append(line)
  part = path.with_name(path.name + '.part')
  part.write_text(''.join(kept), encoding='utf-8')
  os.replace(part, path)


class Progress:
  """A bar with rate and remaining time on a terminal; plain lines, at most LINES and the notes, elsewhere.

  Args:
    last: the number of steps of the run.
    start: the step at which it goes on.
    terminal: whether to draw a bar; by default whether the standard output is a terminal.
    active: False shows nothing but warnings; of several processes one tells.
    stream: where it is shown; None is the standard output.
  """

  def __init__(self, last, start, terminal=None, active=True, stream=None):
    self._last = last
    self._shown = start
    self._bar = None
    self._active = active
    self._stream = sys.stdout if stream is None else stream
    if not active:
      return
    if self._stream.isatty() if terminal is None else terminal:
      columns = rich.progress.BarColumn(), rich.progress.TextColumn('{task.description}', markup=False)
      self._bar = rich.progress.Progress(*columns, console=rich.console.Console(file=self._stream))
      self._task = self._bar.add_task('compiling', total=last, completed=start)
      self._bar.start()

  def update(self, step, text, remaining):
    """Shows the step, what is to be said about it, and the remaining seconds."""
    if not self._active:
      return
    minutes, seconds = divmod(round(remaining), 60)
    line = f'step {step}/{self._last}  {text}  {minutes}:{seconds:02d} left'
    if self._bar:
      self._bar.update(self._task, completed=step, description=line)
    elif step == self._last or step * LINES // self._last > self._shown * LINES // self._last:
      print(line, file=self._stream, flush=True)
      self._shown = step

  def note(self, text):
    """Prints a line that stays."""
    if self._active:
      self.warn(text)

  def warn(self, text):
    """Prints a line that stays, on every process: about a thing that only this one has seen."""
    if self._bar:
      self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
      print(text, file=self._stream, flush=True)

  def close(self):
    if self._bar:
      self._bar.stop()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()
