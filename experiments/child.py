"""One job of an experiment in a process of its own: python -m experiments.child JOB FOLDER [CORES]

FOLDER is that of a run and holds its config.json. CORES, such as 0,1, are the processor cores that the
process may use. The process ends with its parent, whose end closes the standard input: training then saves
its state.
"""

import os
import signal
import sys
import threading


def main():
  job, folder, *cores = sys.argv[1:]
  if cores:
    os.sched_setaffinity(0, {int(core) for core in cores[0].split(',')})
  threading.Thread(target=_follow_parent, daemon=True).start()
  # Not before the cores are chosen: XLA counts them once.
  from ctx_flax.training.halt import Halt
  from experiments.jobs import JOBS

  try:
    JOBS[job](folder)
  except Halt as halt:
    print(f'error: {halt}', file=sys.stderr, flush=True)
    sys.exit(halt.status)


def _follow_parent():
  # Not through sys.stdin, whose lock this thread would hold when the process ends.
  if not os.read(0, 1):
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == '__main__':
  main()
