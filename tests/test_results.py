"""What is said about a test of a classifier."""

import io

import rich.console

from ctx_flax.tasks.classification import results


def test_results():
  contextual = {f'accuracy{s}': s / 10 for s in (1, 2, 3, 4)} | {f'loss{s}': float(s) for s in (1, 2, 3, 4)}
  contextual |= {'recall2': 0.9, 'recall3': 0.8, 'recall4': 0.7654}
  plain = {'accuracy4': 0.987, 'loss4': 0.05}
  assert results.percent_by_stage(contextual) == '10.0 | 20.0 | 30.0 | 40.0 %'
  assert results.percent_by_stage(plain) == '98.7 %'
  console = rich.console.Console(file=io.StringIO(), width=100)
  console.print(results.table({'raw': contextual, 'EMA': plain}))
  rows = [line.replace('│', ' ').split() for line in console.file.getvalue().splitlines()]
  assert ['raw', '1', '10.00', '%', '1.0000'] in rows
  assert ['raw', '4', '40.00', '%', '4.0000', '76.54', '%'] in rows
  assert ['EMA', '4', '98.70', '%', '0.0500'] in rows
