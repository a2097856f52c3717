"""Ending a run early: wrong input, a signal, values that are not finite."""

import contextlib
import signal

from ctx_flax.data.decode import BadImage
from ctx_flax.files import printable


class Halt(Exception):
  """A run that ends early for a reason to be read: one line of valid Unicode, and the exit status."""

  def __init__(self, reason, status):
    super().__init__(printable(reason))
    self.status = status


@contextlib.contextmanager
def bad_input():
  """Turns the errors of setting up, which name the wrong thing, into a Halt."""
  try:
    yield
  except (ValueError, OSError, ImportError) as error:  # the last: weights that take PyTorch, say
    raise Halt(' '.join(str(error).split()), 2) from error


@contextlib.contextmanager
def bad_data():
  """Turns an image that cannot be read, where that is an error, into a Halt."""
  try:
    yield
  except BadImage as error:
    raise Halt(' '.join(str(error).split()), 2) from error


@contextlib.contextmanager
def failed_writes(workdir, step):
  """Turns what a full disk or a lost folder does to a run into a Halt; step() is where it has come to."""
  try:
    yield
  except OSError as error:
    reason = ' '.join(str(error).split())
    raise Halt(
      f'writing to {workdir} failed at step {step()}: {reason}; its last complete checkpoint stays, and the '
      'same command goes on from there',
      1,
    ) from error


@contextlib.contextmanager
def failed_report(path):
  """Turns what keeps the result of a mode from being written into a Halt."""
  try:
    yield
  except OSError as error:
    raise Halt(f'{path} could not be written: {" ".join(str(error).split())}', 1) from error


@contextlib.contextmanager
def stopping_signal():
  """Yields a list that SIGINT or SIGTERM is added to when it comes; the same signal again kills at once."""
  received = []

  def receive(number, _):
    received.append(signal.Signals(number))
    signal.signal(number, before[received[-1]])

  before = {}
  for wanted in (signal.SIGINT, signal.SIGTERM):
    # Fails outside the main thread, where signals do not arrive.
    with contextlib.suppress(ValueError):
      before[wanted] = signal.signal(wanted, receive)
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
