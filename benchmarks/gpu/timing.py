"""Time and memory of one function on one device.

Compilation is apart; calls queue up, and only the end of a queue is waited for.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.gpu_program import launches

QUEUES = 5  # whose median counts
QUEUE_SECONDS = 0.15
MOST_CALLS = 30  # in a queue
LONG = 0.3  # seconds of a call of which two queues have to do


def compiled(
  function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...] = ()
) -> tuple[Any, float]:
  """(the program for these arguments, the seconds that it took to trace and compile it)."""
  began = time.perf_counter()
  program = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
  return program, time.perf_counter() - began


def queued(call: Callable[[], Any], wait: Callable[[Any], object]) -> dict[str, float]:
  """Milliseconds of a call, median and least of some queues of calls.

  Args:
    call: begins to compute and returns something to wait for.
    wait: returns when that has been computed, and all that began before it.
  """
  wait(call())
  began = time.perf_counter()
  wait(call())
  once = time.perf_counter() - began
  calls = max(1, min(MOST_CALLS, int(QUEUE_SECONDS / max(once, 1e-5))))
  times = []
  for _ in range(2 if once > LONG else QUEUES):
    began = time.perf_counter()
    for _ in range(calls):
      out = call()
    wait(out)
    times.append(1e3 * (time.perf_counter() - began) / calls)
  return {'ms': round(statistics.median(times), 4), 'best_ms': round(min(times), 4)}


def measure(function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
  """Times a function of arrays: milliseconds, memory and launches of a call."""
  program, seconds = compiled(function, *arguments)
  times = queued(lambda: program(*arguments), jax.block_until_ready)
  return {**times, **described(program, seconds)}


def measure_steps(step: Callable[..., Any], state: Any, *arguments: Any) -> dict[str, Any]:
  """Times step(state, *arguments) -> (state, output), whose state is used up by the next call."""
  program, seconds = compiled(step, state, *arguments, donate=(0,))
  kept = [state]

  def call() -> Any:
    new, output = program(kept.pop(), *arguments)
    kept.append(new)
    return output

  return {**queued(call, jax.block_until_ready), **described(program, seconds)}


def described(program: Any, seconds: float) -> dict[str, Any]:
  """What a compiled program says of itself.

  memory_MB: arguments, results and temporary memory at once, what results take over from arguments counted
  once; temp_MB: the temporary part. Both are the compiler's count. launches: kernels, copies and library
  calls; None for a program with loops of an unknown number of turns. peak_so_far_MB: of jax's allocator since
  the program began, so at least that of this row.
  """
  found: dict[str, Any] = {'compile_s': round(seconds, 1)}
  memory = program.memory_analysis()
  if memory is not None:
    temporary = memory.temp_size_in_bytes
    total = (
      memory.argument_size_in_bytes + memory.output_size_in_bytes + temporary - memory.alias_size_in_bytes
    )
    found |= {'memory_MB': round(total / 1e6, 1), 'temp_MB': round(temporary / 1e6, 1)}
  try:
    found['launches'] = launches.count(launches.launches(program.as_text()))
  except ValueError:
    found['launches'] = None
  peak = (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use')
  return found if peak is None else {**found, 'peak_so_far_MB': round(peak / 1e6)}
