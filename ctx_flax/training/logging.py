"""What a run tells on the screen: its progress and its results."""

import sys

import rich.progress

from ctx_flax.terminal import console

LINES = 20  # of progress in a whole run, where the output is no terminal


class Progress:
  """A bar with rate and remaining time on a terminal; plain lines, at most LINES and the notes, elsewhere.

  Args:
    last: the number of steps of the run.
    start: the step at which it goes on.
    terminal: whether to draw a bar; by default whether the standard output is a terminal.
    active: False shows nothing but warnings; of several processes one tells.
    stream: where it is shown; None is the standard output.
    verb: what is said before the numbers of steps.
  """

  def __init__(self, last, start, terminal=None, active=True, stream=None, verb='step'):
    self._last = last
    self._verb = verb
    self._shown = start
    self._bar = None
    self._active = active
    self._stream = sys.stdout if stream is None else stream
    if not active:
      return
    if self._stream.isatty() if terminal is None else terminal:
      columns = rich.progress.BarColumn(), rich.progress.TextColumn('{task.description}', markup=False)
      self._bar = rich.progress.Progress(*columns, console=console(self._stream))
      self._task = self._bar.add_task('compiling', total=last, completed=start)
      self._bar.start()

  def update(self, step, text, remaining):
    """Shows the step, what is to be said about it, and the remaining seconds."""
    if not self._active:
      return
    minutes, seconds = divmod(round(remaining), 60)
    line = f'{self._verb} {step}/{self._last}  {text}  {minutes}:{seconds:02d} left'
    if self._bar:
      self._bar.update(self._task, completed=step, description=line)
    elif step == self._last or step * LINES // self._last > self._shown * LINES // self._last:
      print(line, file=self._stream, flush=True)
      self._shown = step

  def within(self, text):
    """Says on a terminal what takes long within a step; in a log it is no news."""
    if self._active and self._bar:
      self._bar.update(self._task, description=text)

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
