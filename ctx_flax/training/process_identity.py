"""Which process is meant, and whether it still runs: ids are given again, after a restart and before."""

import os
import pathlib


def runs(pid: int, started: int) -> bool:
  """Whether a process of this machine runs, and is the one that started then (0: not known)."""
  if os.name != 'posix':  # os.kill(pid, 0) would end it there
    return True
  now = start_time(pid)
  if now is not None and started:
    return now == started
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:  # another user's, of which the system may hide the rest
    return True
  return not os.path.isdir(
    '/proc/self'
  )  # that hides none of our own: it has ended and is not cleared away yet


def start_time(pid: int) -> int | None:
  """The clock ticks from the boot to the start of a process; None if it does not run, or is not known."""
  # The name in parentheses may hold anything, even a parenthesis: state is the first field behind it.
  fields = _system(f'/proc/{pid}/stat').rpartition(')')[2].split()
  return int(fields[19]) if len(fields) > 19 and fields[0] not in 'ZX' else None


def boot() -> str:
  """The id of this start of the machine, '' if the system does not tell it."""
  return _system('/proc/sys/kernel/random/boot_id').strip()


def uptime() -> float:
  """Seconds since this machine was started; without bound where it is not known."""
  return float((_system('/proc/uptime').split() or ['inf'])[0])


def namespace() -> str:
  """That of the process ids that this process sees: containers on one machine have their own."""
  try:
    return os.readlink('/proc/self/ns/pid')
  except OSError:
    return ''


def _system(path: str) -> str:
  try:
    return pathlib.Path(path).read_text(encoding='utf-8', errors='replace')
  except OSError:
    return ''
