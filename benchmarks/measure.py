"""Measuring on a machine that others use too: candidates take turns, ratios are medians over the rounds."""

import dataclasses
import statistics
import time
from typing import Any

import jax


@dataclasses.dataclass
class Program:
  """A compiled function with its arguments on the device, and what compiling it told.

  Attributes:
    run: computes once and waits for the result.
    trace_seconds, compile_seconds: of making it.
    temp_bytes: temporary memory beside arguments and results, by the compiler's own count.
  """

  run: Any
  trace_seconds: float
  compile_seconds: float
  temp_bytes: int


def program(function, *arguments):
  """Compiles a function of arrays for the arguments it gets."""
  arguments = jax.device_put(arguments)
  began = time.perf_counter()
  lowered = jax.jit(function).lower(*arguments)
  traced = time.perf_counter()
  compiled = lowered.compile()
  ended = time.perf_counter()
  analysis = compiled.memory_analysis()
  return Program(
    run=lambda: jax.block_until_ready(compiled(*arguments)),
    trace_seconds=traced - began,
    compile_seconds=ended - traced,
    temp_bytes=analysis.temp_size_in_bytes if analysis else 0,
  )


def take_turns(candidates, rounds, least_seconds=0.2):
  """Seconds of one call of each candidate in each round.

  Args:
    candidates: {name: function without arguments that waits for its result}.
    rounds: in each, every candidate runs once after the other; one more, first, only warms up.
    least_seconds: a candidate that takes less is called several times in a round, after as many calls that do
      not count: the system is still taking back the memory of the candidate before, some of them gigabytes.

  Returns:
    {name: [seconds per call, one for each round]}.
  """
  calls = {}
  for name, run in candidates.items():
    run()
    began = time.perf_counter()
    run()
    calls[name] = max(1, round(least_seconds / max(time.perf_counter() - began, 1e-9)))
  seconds: dict[str, list[float]] = {name: [] for name in candidates}
  for _ in range(rounds):
    for name, run in candidates.items():
      for _ in range(calls[name]):
        run()
      began = time.perf_counter()
      for _ in range(calls[name]):
        run()
      seconds[name].append((time.perf_counter() - began) / calls[name])
  return seconds


def median(seconds):
  return statistics.median(seconds)


def ratio(slow, fast):
  """How many times faster: the median over rounds of slow / fast, each pair from one round."""
  return statistics.median(a / b for a, b in zip(slow, fast, strict=True))
