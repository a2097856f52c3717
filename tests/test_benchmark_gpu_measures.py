"""What the benchmark for GPUs compares, times and counts, at tiny sizes on a CPU; no times are judged."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import network_step
from benchmarks.gpu import cases, catalogue, correctness, networks, operations, timing
from benchmarks.gpu.sizes import FULL, SMOKE
from ctx_flax import ops
from ctx_flax.ops.depthwise_conv import PATHS

CASES = cases.all_cases(SMOKE)


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
