"""Runs the jobs of an experiment, each in a process of its own, as many at a time as there are places.

A place is a GPU, or a share of the processor's cores. A job that has a result is not done again; one that was
killed goes on from its last checkpoint.
"""

import contextlib
import dataclasses
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ctx_flax.files import printable
from ctx_flax.tasks import task_of
from ctx_flax.training import run_folder
from ctx_flax.training.halt import Halt, bad_input
from experiments.results import read_result

COUNT_GPUS = 'import jax; print(sum(device.platform == "gpu" for device in jax.devices()))'
CHILD = (sys.executable, '-m', 'experiments.child')
LOG = 'log.txt'  # of what the processes of a run print


@dataclasses.dataclass(frozen=True)
class Place:
  """Where one job at a time runs.

  Attributes:
    environment: variables that its processes get besides.
    cores: processor cores that they may use; () for all.
  """

  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
  cores: tuple[int, ...] = ()


def places(count: int = 0) -> list[Place]:
  """A place on each GPU, or equal shares of the processor's cores.

  Args:
    count: how many there should be; 0 is one for each GPU, and a single one without GPUs.

  Raises:
    ValueError: there are fewer cores.
  """
  # In another process: this one then holds no GPU's memory.
  answer = subprocess.run([sys.executable, '-c', COUNT_GPUS], capture_output=True, text=True, check=False)
  gpus = int(answer.stdout) if answer.returncode == 0 else 0
  if gpus:
    # A variable that is set already chooses among the machine's GPUs: its names are passed on, not 0, 1, ...
    names = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')
    names = names if len(names) == gpus and all(names) else [str(i) for i in range(gpus)]
    chosen = [Place({'CUDA_VISIBLE_DEVICES': names[i % gpus]}) for i in range(count or gpus)]
    if len(chosen) > gpus:
      share = f'{0.9 / -(-len(chosen) // gpus):.2f}'
      chosen = [Place({**place.environment, 'XLA_PYTHON_CLIENT_MEM_FRACTION': share}) for place in chosen]
    return chosen
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
  if count <= 1 or not cores:
    return [Place()] * max(count, 1)
  if count > len(cores):
    raise ValueError(f'{count} runs side by side need as many processor cores; there are {len(cores)}')
  return [Place(cores=tuple(cores[i::count])) for i in range(count)]


def run_each(
  job: str,
  configs: Mapping[str, Any],
  folder: pathlib.Path,
  at: Sequence[Place],
  after: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
  """Does a job with each run that has no result of it yet.

  Args:
    job: a name of experiments.jobs.JOBS.
    configs: {name: config}; a name is the run's folder below `folder`. The earlier ones are started first.
    folder: of the experiment.
    at: the places.
    after: called with all results so far whenever there is another one.

  Returns:
    {name: result}, in the order of the configs.

  Raises:
    Halt: a folder holds another run, or a job failed, after the others that were running have ended.
    KeyboardInterrupt: Ctrl-C, after the jobs have saved their states.
  """
  results: dict[str, Any] = {}
  waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
  for name, config in configs.items():
    with bad_input():
      run_folder.check(folder / name, config, task_of(config).identity)
      run_folder.claim(folder / name, config)
    results[name] = read_result(folder / name, job)
    if not results[name]:
      waiting.put(name)
  total = waiting.qsize()
  if after and any(results.values()):
    after({name: result for name, result in results.items() if result})
  if not total:
    return results
  progress = printable(folder / next(name for name in configs if not results[name]) / LOG)
  print(
    f'{job}: {total} of {len(configs)} to do, {len(at)} at a time; progress of the first: {progress}',
    flush=True,
  )
  pool = _Pool(job, folder, at, waiting)
  with contextlib.closing(pool.finished()) as finished:
    for name, result in finished:
      results[name] = result
      if after:
        after({name: result for name, result in results.items() if result})
  return results


class _Pool:
  """A thread at each place, which waits for one process after the other."""

  def __init__(self, job, folder, at, waiting):
    self.job, self.folder, self.at, self.waiting = job, folder, at, waiting
    self.total = waiting.qsize()
    # (name, its result or {}, why it could not be started or ''), or None from a place with no more to do
    self.ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    self.processes = {}
    self.stopped = False
    self.lock = threading.Lock()  # no process starts after _stop has looked for those that run

  def finished(self):
    """Yields (name, result) of each job as it ends."""
    threads = [threading.Thread(target=self._work, args=(place,), daemon=True) for place in self.at]
    start, done, failure, left = time.monotonic(), 0, '', len(threads)
    for thread in threads:
      thread.start()
    try:
      while left:
        ended = self.ended.get()
        if ended is None:
          left -= 1
          continue
        name, result, reason = ended
        if not result:
          failure = failure or f'{self.job} of {printable(name)} failed: {reason or self._last_words(name)}'
          continue
        done += 1
        minutes = (time.monotonic() - start) / 60
        ahead = minutes / done * (self.total - done)
        accuracy = f' {100 * result["accuracy"]:.2f} %,' if 'accuracy' in result else ''
        print(
          f'{self.job} {done} of {self.total}: {printable(name)},{accuracy} {minutes:.0f} minutes, some '
          f'{ahead:.0f} to go',
          flush=True,
        )
        yield name, result
    finally:
      self._stop(threads)
    if failure:
      raise Halt(failure, 1)

  def _work(self, place):
    while not self.stopped:
      try:
        name = self.waiting.get_nowait()
      except queue.Empty:
        break
      result, reason = {}, ''
      try:
        status = self._run(name, place)
        if status is None:
          break
        if status == 0:
          result = read_result(self.folder / name, self.job)
      except OSError as error:  # a full disk, or no memory for another process
        reason = ' '.join(str(error).split())
      if not result:
        self.stopped = True  # what runs now may end, nothing else starts
      self.ended.put((name, result, reason))
    self.ended.put(None)

  def _run(self, name, place):
    """The exit status of the process that does the job of a run; None if nothing starts any more."""
    command = [*CHILD, self.job, str(self.folder / name)]
    if place.cores:
      command.append(','.join(map(str, place.cores)))
    environment = {**os.environ, **place.environment}
    with open(self.folder / name / LOG, 'ab') as log:
      # A closed standard input tells the process that this one has ended, however it did.
      streams: dict[str, Any] = {'stdin': subprocess.PIPE, 'stdout': log, 'stderr': subprocess.STDOUT}
      with self.lock:
        if self.stopped:
          return None
        self.processes[name] = process = subprocess.Popen(command, env=environment, **streams)
      with process:
        return process.wait()

  def _last_words(self, name):
    log = self.folder / name / LOG
    return f'{_last_line(log)} ({printable(log)})'

  def _stop(self, threads):
    """Ends what still runs, after an error or a signal; each process saves its state."""
    with self.lock:
      self.stopped = True
    for process in self.processes.values():
      if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    for thread in threads:
      thread.join()


def _last_line(log):
  lines = log.read_text(encoding='utf-8', errors='replace').split('\n') if log.exists() else []
  return next((line.strip() for line in reversed(lines) if line.strip()), 'it said nothing')
