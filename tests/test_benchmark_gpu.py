"""The benchmark for GPUs at tiny sizes on a CPU: what it compares, counts, records and refuses; no times."""

import dataclasses
import json
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from program import ROOT

from benchmarks import network_step
from benchmarks.gpu import cases, catalogue, correctness, networks, operations, program, sizes, timing
from benchmarks.gpu.rows import Record, Row, Tally, WrongFile, described, run_all, table
from benchmarks.gpu.sizes import FULL, SMOKE
from ctx_flax import ops
from ctx_flax.ops.depthwise_conv import PATHS

CARD = {'card': 'a card', 'versions': {'jax': '1.0', 'flax': '2.0'}}
CASES = cases.all_cases(SMOKE)
ABSENT = 'grain', 'ml_collections', 'tensorboardX', 'tensorflow_datasets', 'torch', 'timm'


def run(path, *rows, left=lambda: 100.0, **options):
  """(what was said, the tally, the rows of the file)."""
  said, tally = [], Tally()
  run_all(rows, Record(path, CARD), tally, left=left, say=said.append, **options)
  return said, tally, json.loads(path.read_text())['rows'] if path.exists() else None


def fail():
  raise ValueError('no kernel in /home/somebody/cuda/lib.so\nof this size')


@pytest.fixture
def use(monkeypatch):
  """Makes the program have these rows."""
  return lambda *rows: monkeypatch.setattr(catalogue, 'all_rows', lambda sizes: list(rows))


def test_a_failing_row_costs_itself_alone(tmp_path):
  freed = []
  rows = Row('a', lambda: {'ms': 1.5}, 1), Row('b', fail, 1), Row('c', lambda: {'ok': False}, 1)
  said, tally, written = run(tmp_path / 'found.json', *rows, after=lambda: freed.append(1))
  assert (tally.done, tally.failed, tally.left_out) == (['a'], ['b', 'c'], []) and len(freed) == 3
  assert [row['name'] for row in written] == ['a', 'b', 'c'] and written[0]['ms'] == 1.5
  assert written[1]['error'] == 'ValueError: no kernel in lib.so of this size'
  assert 'a: ms 1.5' in said[0] and 'lib.so' in said[1] and len(said) == 3


def test_a_file_is_continued(tmp_path):
  path, calls = tmp_path / 'found.json', []

  def count(name):
    calls.append(name)
    return {'ms': float(len(calls))}

  a, b = (Row(name, lambda name=name: count(name), 1) for name in 'ab')
  run(path, a, Row('b', fail, 1))
  said, tally, written = run(path, a, b)  # what failed is measured again
  assert calls == ['a', 'b'] and tally.known == ['a'] and 'a: is in the file' in said[0]
  assert [(row['name'], row['ms']) for row in written] == [('a', 1.0), ('b', 2.0)]
  _, tally, written = run(path, a, again=True)
  assert tally.known == [] and [(row['name'], row['ms']) for row in written] == [('a', 3.0), ('b', 2.0)]


def test_what_takes_too_long_is_left_out(tmp_path):
  long, short = Row('long', fail, 20), Row('short', lambda: {'ms': 1.0}, 5)
  said, tally, written = run(tmp_path / 'found.json', long, short, left=lambda: 10.0)
  assert (tally.left_out, tally.done) == (['long'], ['short'])
  assert 'long: left out, needs about 20 s and 10 s are left' in said[0]
  assert [row['name'] for row in written] == ['short']  # so that a later call takes the other


@pytest.mark.parametrize(
  'content, message',
  [
    ('{"rows": [', 'no file of this program'),
    ('{"models": []}', 'no file of this program'),
    ('[1]', 'no file of this program'),
    (json.dumps({**CARD, 'card': 'another', 'rows': []}), "its card is 'another', but here 'a card'"),
    (
      json.dumps({**CARD, 'versions': {'jax': '0.9', 'flax': '2.0'}, 'rows': []}),
      "its versions is {'jax': '0.9'}, but here {'jax': '1.0'}",
    ),
  ],
)
def test_other_files_are_refused(tmp_path, content, message):
  path = tmp_path / 'found.json'
  path.write_text(content)
  with pytest.raises(WrongFile) as error:
    Record(path, CARD)
  assert message in str(error.value) and '\n' not in str(error.value) and path.read_text() == content


def test_the_file_is_valid_after_an_interruption(tmp_path, use, capsys):
  def interrupt():
    raise KeyboardInterrupt

  path = tmp_path / 'found.json'
  use(Row('a', lambda: {'ms': 1.0}, 1), Row('b', interrupt, 1), Row('c', fail, 1))
  assert program.main(['--smoke', f'--out={path}']) == 130
  assert [row['name'] for row in json.loads(path.read_text())['rows']] == ['a']
  assert 'interrupted: 1 rows measured, 0 failed' in capsys.readouterr().out


def test_exit_status_and_summary(tmp_path, use, capsys):
  out = f'--out={tmp_path / "found.json"}'
  use(Row('a', lambda: {'ok': True, 'errors': [0.0, 1e-7]}, 1), Row('b', lambda: {'ok': False}, 1))
  assert program.main(['--smoke', out, '--only=^a']) == 0
  assert '| a |  |  |  |  |  | ok True, errors 0 1e-07 |' in capsys.readouterr().out
  assert program.main(['--smoke', out]) == 1
  printed = capsys.readouterr().out
  assert 'failed: b' in printed and '0 rows measured, 1 failed, 0 left out, 1 in' in printed
  assert program.main(['--smoke', out, '--again', '--seconds=0', '--only=a']) == 0
  assert '0 rows measured, 0 failed, 1 left out' in capsys.readouterr().out
  written = (tmp_path / 'found.json').read_text()
  assert socket.gethostname() not in written and str(tmp_path) not in written and str(ROOT) not in written


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--only=('], "'(' is no regular expression"),
    (['--only=no such row'], "--only='no such row' fits no row"),
    ([], 'no GPU: the first device of jax is'),
    (['--deterministic', '--list'], 'jax runs already'),
  ],
)
def test_mistakes_are_told_in_a_line(arguments, message, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit) as error:
    program.main(arguments)
  assert message in f'{capsys.readouterr().err}{error.value}' and '\n' not in str(error.value)
  assert list(tmp_path.iterdir()) == []


def test_deterministic_operations_are_asked_for_before_jax_runs(monkeypatch):
  monkeypatch.delitem(sys.modules, 'jax')
  monkeypatch.setenv('XLA_FLAGS', '--xla_some=1')
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
  program.prepare(True)
  assert os.environ['XLA_FLAGS'] == f'--xla_some=1 {program.DETERMINISTIC}'
  assert os.environ['JAX_PLATFORMS'] == 'cuda,cpu'  # the CPU says what is right


@pytest.mark.parametrize('chosen', [FULL, SMOKE], ids=['full', 'smoke'])
def test_rows_have_names_of_their_own_and_prices_a_row_to_compare_with(chosen):
  names = [row.name for row in catalogue.all_rows(chosen)]
  assert len(set(names)) == len(names) and names[0] == 'machine'
  _, *priced = (row.name for row in catalogue.deterministic_rows(chosen))
  assert {name.removesuffix(catalogue.DETERMINISTIC) for name in priced} < set(names)
  assert any('contextual_depthwise_conv' in name for name in priced) and 'training' in priced[-1]
  assert not set(priced) & set(names)


def test_every_operation_is_checked():
  checked = {name.split()[0] for name in CASES}
  assert checked == {*ops.__all__, 'pointwise_conv', 'best_classes'} - {'MulticlassDetections'}
  for name, case in CASES.items():
    if 'conv' in name:
      assert case.gradients == len(case.arguments), name
  by_path = {row.name for forced in (False, True) for row in correctness.rows(SMOKE, forced=forced)}
  assert {f'correctness depthwise_conv {path} bfloat16' for path in ('default', *PATHS)} < by_path
  assert 'correctness contextual_depthwise_conv one_step_gpu float32' in by_path


@pytest.mark.parametrize('name', ['temporal_shift', 'clip_boxes', 'best_classes', 'pointwise_conv strided'])
def test_a_cpu_agrees_with_itself(name):
  case = CASES[name]
  for dtype in case.dtypes:
    found = correctness.compare(case, None, dtype)
    assert found['ok'] and len(found['errors']) == 1 + case.gradients
    if dtype == 'float32' or case.exact:
      assert found['errors'] == [0.0] * len(found['errors'])


def test_wrong_values_and_gradients_are_told():
  @jax.custom_vjp
  def double(x):
    return 2 * x

  double.defvjp(lambda x: (2 * x, None), lambda _, dy: (2.02 * dy,))

  def function(x, path):
    return {None: lambda: 2 * x, 'gradient': lambda: double(x), 'value': lambda: 2 * x + (x > 1)}[path]()

  case = cases.Case(function, (np.array([1.0, 2.0], np.float32),), 1, (None, 'gradient', 'value'))
  assert correctness.compare(case, None, 'float32') == {'ok': True, 'bound': 1e-5, 'errors': [0.0, 0.0]}
  assert correctness.compare(case, 'gradient', 'float32')['errors'] == [0.0, 0.01]
  assert not correctness.compare(case, 'gradient', 'float32')['ok']
  exact = dataclasses.replace(case, exact=True)
  assert correctness.compare(exact, 'value', 'bfloat16') == {'ok': False, 'bound': 0.0, 'errors': [0.5, 0.0]}
  undefined = dataclasses.replace(case, function=lambda x, path: x / (path is None))
  assert correctness.compare(undefined, 'value', 'float32')['errors'] == ['inf', 'inf']


def test_memory_and_launches_of_a_function():
  found = timing.measure(lambda x: jnp.cumsum(x * 2) + 1, jnp.ones(250_000))
  assert found['memory_MB'] - found['temp_MB'] == pytest.approx(2.0)  # a megabyte in, one out
  assert found['launches'] >= 1 and 0 < found['best_ms'] <= found['ms']


def test_a_step_takes_its_own_state_and_its_memory():
  state, calls = jnp.zeros(250_000), []

  def step(state, x):
    jax.debug.callback(lambda first: calls.append(float(first)), state[0])
    return state + x, state[1]

  found = timing.measure_steps(step, state, jnp.float32(1))
  jax.effects_barrier()
  assert calls == [float(n) for n in range(len(calls))] and len(calls) >= 4
  assert state.is_deleted()
  assert found['memory_MB'] - found['temp_MB'] == pytest.approx(1.0)  # not two


def test_an_unknown_number_of_launches_is_none():
  found = timing.measure(lambda x: jax.lax.while_loop(lambda x: x < 100, lambda x: x * x, x), jnp.float32(2))
  assert found['launches'] is None


@pytest.mark.parametrize('seconds, calls, queues', [(0.001, 30, 5), (0.04, 3, 5), (0.5, 1, 2)])
def test_calls_queue_up(seconds, calls, queues, monkeypatch):
  """Of a clock that moves when it waits."""
  events, now = [], [0.0]

  def wait(_):
    events.append('wait')
    now[0] += seconds

  monkeypatch.setattr(timing.time, 'perf_counter', lambda: now[0])
  found = timing.queued(lambda: events.append('call'), wait)
  assert events == ['call', 'wait'] * 2 + (['call'] * calls + ['wait']) * queues
  assert found['ms'] == found['best_ms'] == pytest.approx(1e3 * seconds / calls, abs=1e-4)


@pytest.mark.parametrize('direction, argument', [('dx', 0), ('dk', 1)])
def test_directions_of_a_plain_convolution(direction, argument):
  x, kernel, dy = cases.normal(0, 1, 3, 3, 2), cases.normal(1, 7, 7, 1, 2), cases.normal(2, 1, 3, 3, 2)

  def run(x, kernel):
    return ops.depthwise_conv(x, kernel, padding=3, path='xla')

  alone = jax.jit(lambda *arrays: operations.PLAIN_DIRECTIONS[direction](run, *arrays))(x, kernel, dy)
  both = jax.jit(lambda x, kernel, dy: jax.vjp(run, x, kernel)[1](dy))(x, kernel, dy)
  np.testing.assert_allclose(alone, both[argument], rtol=1e-5, atol=1e-5)


def test_states_have_the_shapes_of_a_network():
  state = networks.initial_state('ctx_resnet_mini', 32)
  model = network_step.network('ctx_resnet_mini', 'bfloat16')
  expected = jax.eval_shape(lambda: network_step.initial_state(model, 32))
  same = jax.tree.map(lambda a, e: a.shape == e.shape and a.dtype == e.dtype, state, expected)
  assert all(jax.tree.leaves(same))
  leaves = jax.tree_util.tree_leaves_with_path(state['variables'])
  assert all(np.any(leaf) == (leaf.ndim > 1 or path[-1].key in networks.ONES) for path, leaf in leaves)


def test_errors_name_no_folders():
  error = RuntimeError("cannot open '/root/a b/x.so' or /usr/lib/y.so: see https://example.com/a/b")
  assert described(error).startswith("RuntimeError: cannot open '")
  assert '/usr' not in described(error) and 'y.so: see https://example.com/a/b' in described(error)


def test_tables_keep_their_columns():
  rows = {'a': {'ms': 1234.5, 'launches': 7, 'note': 'x|y'}, 'b': {'error': 'Wrong: it'}}
  lines = table(rows).splitlines()
  assert lines[2:] == ['| a | 1,234 |  |  | 7 |  | note x/y |', '| b |  |  |  |  |  | error Wrong: it |']
  assert {line.count('|') for line in lines} == {8}


@pytest.mark.slow
@pytest.mark.parametrize('arguments', [[], ['--deterministic']], ids=['plain', 'deterministic'])
def test_it_needs_no_more_than_jax_flax_and_optax(arguments, tmp_path):
  code = (
    f'import sys; sys.modules.update(dict.fromkeys({ABSENT}))\n'
    'from benchmarks.__main__ import main; sys.exit(main(sys.argv[1:]))'
  )
  out, only = (
    tmp_path / 'found.json',
    '--only=machine|correctness clip|conv 3x3 gradients 2x4x4x6 bfloat16 de',
  )
  process = subprocess.run(
    [sys.executable, '-c', code, 'gpu', '--smoke', f'--out={out}', only, *arguments],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert process.returncode == 0, process.stdout + process.stderr
  names = [row['name'] for row in json.loads(out.read_text())['rows']]
  operation = 'contextual_conv 3x3 gradients 2x4x4x6 bfloat16 default'
  if arguments:
    assert names == ['machine', f'{operation}{catalogue.DETERMINISTIC}']
  else:
    assert names == ['machine', 'correctness clip_boxes float32', operation]


@pytest.mark.slow
def test_all_rows(tmp_path, monkeypatch):
  path = tmp_path / 'found.json'
  monkeypatch.setattr(catalogue.peers, 'installed', lambda *packages: False)
  # One of each family: LayerNorm and BatchNorm, contextual and plain.
  few = {name: SMOKE.networks[name] for name in ('ctx_convnext_t', 'resnet50')}
  small = dataclasses.replace(SMOKE, networks=few)
  monkeypatch.setattr(sizes, 'SMOKE', small)
  assert program.main(['--smoke', f'--out={path}']) == 0
  written = {row['name']: row for row in json.loads(path.read_text())['rows']}
  assert list(written) == [row.name for row in catalogue.all_rows(small)]
  for name, row in written.items():
    assert 'error' not in row
    if name.startswith('correctness'):
      assert row['ok']
    elif name != 'machine':
      assert row['ms'] > 0 and row['memory_MB'] >= 0 and row['launches'] > 0
    assert ('images_per_s' in row) == name.startswith('network ')
