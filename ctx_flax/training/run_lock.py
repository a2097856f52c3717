"""The lock of a run's folder: one training at a time writes there.

WORKDIR/lock.json names the process that trains and is removed when it ends. Its modification time is the
heartbeat: a thread renews it every HEARTBEAT seconds. A lock whose process has died does not block: on the
same machine the process is looked up, on another one a heartbeat older than STALE seconds counts as dead.
Nothing but files that are created exclusively and replaced atomically is used: network file systems may lack
flock.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import threading
import time
import uuid
import zlib
from typing import Any

import jax

from ctx_flax.files import write_text
from ctx_flax.training import distributed, process_identity
from ctx_flax.training.halt import Halt

FILE = 'lock.json'
HEARTBEAT = 30.0  # seconds
STALE = 600.0  # seconds; a machine that sleeps or a mount that hangs for longer loses its lock
STARTING = 60.0  # seconds in which a lock that cannot be read counts as one that is just being written

Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Holder:
  """The process that a lock file names.

  Attributes:
    host, boot, pid, started: which process: the machine's name and boot id, the process id and its start in
      clock ticks since the boot. '' and 0 where the system does not tell them.
    namespace: of process ids; containers on one machine have their own.
    since: when it took the lock, local time of its machine.
    token: another one for each lock that was ever taken.
    age: seconds since the last heartbeat, when the file was read.
  """

  host: str = ''
  boot: str = ''
  namespace: str = ''
  pid: int = 0
  started: int = 0
  since: str = ''
  token: str = ''
  age: float = dataclasses.field(default=0.0, compare=False)

  def __str__(self) -> str:
    if not self.pid:
      return f'a process that is just starting ({FILE} cannot be read yet)'
    sign = '' if self._here() else f', last sign of life {self.age:.0f} s ago'
    return f'process {self.pid} on {self.host} (training since {self.since}{sign})'

  def alive(self) -> bool:
    """Whether the process still runs, as far as this machine can tell."""
    if not self.pid:
      return self.age < STARTING
    if self._here():
      return process_identity.runs(self.pid, self.started) and (self.started != 0 or self.age < STALE)
    if self.host == socket.gethostname() and self.boot != process_identity.boot():
      # This machine before it was restarted; or another one of the same name, if it gave a sign since then.
      return self.age < min(STALE, process_identity.uptime())
    return self.age < STALE

  def _here(self) -> bool:
    return (self.host, self.boot, self.namespace) == (
      socket.gethostname(),
      process_identity.boot(),
      process_identity.namespace(),
    )


class _Held(Exception):
  """A live process, the Holder in its argument, has the lock."""


class RunLock:
  """Holds the lock of a run's folder, in a `with`. Of a run of several processes the first one holds it.

  Args:
    workdir: the folder of the run; made if it does not exist.

  Raises:
    Halt: (status 2) another training holds the folder; nothing in it was touched. All processes of the run
      end with it.
  """

  def __init__(self, workdir: Path):
    self._workdir = pathlib.Path(workdir)
    self._path = self._workdir / FILE
    self._active = jax.process_index() == 0
    self._released = threading.Event()
    self._own = Holder(
      socket.gethostname(),
      process_identity.boot(),
      process_identity.namespace(),
      os.getpid(),
      process_identity.start_time(os.getpid()) or 0,
      time.strftime('%Y-%m-%d %H:%M:%S'),
      uuid.uuid4().hex,
    )

  def __enter__(self) -> 'RunLock':
    refusal = ''
    if self._active:
      self._made_folder = not self._workdir.exists()
      try:
        self._workdir.mkdir(parents=True, exist_ok=True)
        _acquire(self._path, self._own)
      except _Held as error:
        refusal = (
          f'{self._workdir} is in use by {error}: wait for its end, take another --workdir, or delete '
          f'{self._path} to take over (the other run stops at its next line of metrics)'
        )
      except OSError as error:
        refusal = f'{self._path} could not be written: {" ".join(str(error).split())}'
    if distributed.total([bool(refusal)])[0]:
      raise Halt(refusal or 'process 0 of the run was refused: its message says why', 2)
    if self._active:
      self._thread = threading.Thread(target=self._beat, name='heartbeat of the run', daemon=True)
      self._thread.start()
    return self

  def lost(self) -> bool:
    """Whether the lock was removed or taken over; False in processes that do not hold it."""
    return self._active and _read(self._path) != self._own

  def check(self) -> None:
    """Halt (status 1) if the lock is lost. All processes of a run call it, before anything is written."""
    if distributed.total([self.lost()])[0]:
      other = _read(self._path) if self._active else None
      by = f'was taken over by {other}' if other else 'was removed'
      raise Halt(f'{self._path} {by}: this run stops and writes nothing more', 1)

  def __exit__(self, *_: object) -> None:
    if not self._active:
      return
    self._released.set()
    self._thread.join()
    with contextlib.suppress(OSError):  # it does not block anybody when this process has ended
      if not self.lost():
        self._path.unlink()
      if self._made_folder:
        self._workdir.rmdir()  # fails if the run came as far as writing something

  def _beat(self) -> None:
    while not self._released.wait(HEARTBEAT):
      with contextlib.suppress(OSError):  # the loop's next look says what is wrong
        if not self.lost():
          os.utime(self._path)


def holder(workdir: Path) -> Holder | None:
  """The process that trains in a folder now, or None. Writes nothing."""
  found = _read(pathlib.Path(workdir) / FILE)
  return found if found is not None and found.alive() else None


def _acquire(path: pathlib.Path, own: Holder) -> None:
  """Makes `path` the lock of `own`; _Held if a live process has it.

  Only who holds the lock named after the token of a dead one may replace that one. Of two that find the same
  dead lock one therefore comes first, and the other finds a lock that is alive.
  """
  while True:
    if _create(path, own):
      return
    there = _read(path)
    if there is None:
      continue  # it was released in between
    if there.alive():
      raise _Held(there)
    right = path.with_name(f'{FILE}.{there.token}')
    _acquire(right, own)
    try:
      if _read(path) == there:
        write_text(path, _text(own))
        return
    finally:
      right.unlink(missing_ok=True)


def _create(path: pathlib.Path, own: Holder) -> bool:
  """Writes a file that must not exist; False if it does."""
  try:
    file = path.open('x', encoding='utf-8')
  except FileExistsError:
    return False
  try:
    with file:
      file.write(_text(own))
  except BaseException:
    path.unlink(missing_ok=True)
    raise
  return True


def _text(own: Holder) -> str:
  return json.dumps(_fields(own)) + '\n'


def _fields(holder: Holder) -> dict[str, str | int]:
  """What the file holds: its age is that of the file."""
  return {name: value for name, value in dataclasses.asdict(holder).items() if name != 'age'}


def _read(path: pathlib.Path) -> Holder | None:
  """The Holder that a file names, without a pid if it cannot be read; None if there is no file."""
  try:
    with path.open('rb') as file:
      data, renewed = file.read(), os.fstat(file.fileno()).st_mtime
  except FileNotFoundError:
    return None
  age = max(time.time() - renewed, 0.0)
  try:
    fields = json.loads(data)
    known: dict[str, Any] = {name: type(value)(fields[name]) for name, value in _fields(Holder()).items()}
    return Holder(**known, age=age)
  except (ValueError, TypeError, KeyError):
    return Holder(token=f'unreadable-{zlib.crc32(data):08x}', age=age)
