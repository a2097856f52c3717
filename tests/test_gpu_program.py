"""Reading launches from XLA's program text, comparing them with the recorded table, and what that table says.

No compiler for CUDA is needed; where it is installed, python -m benchmarks gpu_program --check compiles.
"""

import importlib.metadata
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.gpu_program import causes, launches, program, record, target
from ctx_flax.ops import contextual_depthwise_conv

TEXT = """HloModule jit_run

%fused (param_0: f32[8,4]) -> f32[8,4] {
  %param_0 = f32[8,4]{1,0} parameter(0)
  ROOT %add.1 = f32[8,4]{1,0} add(%param_0, %param_0)
}

%body (state: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %state = (s32[], f32[8,4]{1,0}) parameter(0)
  %turn = s32[] get-tuple-element(%state), index=0
  %sum = f32[8,4]{1,0} get-tuple-element(%state), index=1
  %next = s32[] fusion(%turn), kind=kLoop, calls=%fused
  %more = f32[8,4]{1,0} fusion(%sum), kind=kInput, calls=%fused, metadata={op_name="norm/add"}
  %inner = (s32[], f32[8,4]) while(%state), body=%innermost, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %both = (s32[], f32[8,4]{1,0}) tuple(%next, %more)
}

%innermost (inner_state: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %inner_state = (s32[], f32[8,4]{1,0}) parameter(0)
  %copied = ((f32[8,4]{1,0}), f32[8,4]{1,0}, u32[]) fusion-start(%inner_state), kind=kLoop, calls=%fused
  %waited = f32[8,4]{1,0} fusion-done(%copied)
  ROOT %again = (s32[], f32[8,4]{1,0}) tuple(%waited)
}

%test (c: (s32[], f32[8,4])) -> pred[] {
  %c = (s32[], f32[8,4]{1,0}) parameter(0)
  ROOT %less = pred[] compare(%c, %c), direction=LT
}

%short (s: f32[8,4]) -> f32[8,4] {
  ROOT %s = f32[8,4]{1,0} parameter(0)
}

%long (l: f32[8,4]) -> f32[8,4] {
  %l = f32[8,4]{1,0} parameter(0)
  ROOT %scaled = f32[8,4]{1,0} fusion(%l), kind=kLoop, calls=%fused
}

ENTRY %main (a: f32[8,4], /*index=1*/b: bf16[2]) -> (bf16[8,4], pred[3]) {
  %a = f32[8,4]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[8,4]{1,0}) tuple(%zero, /*index=1*/%a)
  %loop = (s32[], f32[8,4]) while(%start), body=%body, backend_config={"known_trip_count":{"n":"7"}}
  %chosen = f32[8,4]{1,0} conditional(%zero, %a, %a), branch_computations={%short, %long}
  %product = (f32[8,4]{1,0}, u8[16]{0}) custom-call(%a, %a), custom_call_target="__cublas$gemm"
  ROOT %out = (bf16[8,4]{1,0}, pred[3]{0}) fusion(%a), kind=kLoop, calls=%fused
}
"""


def test_launches_are_counted_with_the_turns_of_loops_and_the_longest_branch():
  found = launches.launches(TEXT)
  assert [(one.name, one.times) for one in found] == [
    ('next', 7),
    ('more', 7),
    ('copied', 21),
    ('scaled', 1),
    ('product', 1),
    ('out', 1),
  ]
  assert launches.count(found) == 38
  by_name = {one.name: one for one in found}
  assert by_name['product'].kind == '__cublas$gemm' and by_name['more'].kind == 'kInput'
  assert by_name['product'].bytes == 8 * 4 * 4 + 16
  assert by_name['out'].bytes == 8 * 4 * 2 + 3


def test_a_loop_of_unknown_length_is_no_guess():
  with pytest.raises(ValueError, match='inner: a loop of an unknown number of turns'):
    launches.launches(TEXT.replace('"known_trip_count":{"n":"3"}', ''))


def test_counts_of_a_program_that_xla_made():
  """On the CPU, whose program text has the same form: a loop of five turns launches its body five times."""

  def run(x):
    return jax.lax.fori_loop(0, 5, lambda i, x: jnp.sort(x * 2), x)

  found = launches.launches(jax.jit(run).lower(jnp.ones((4, 3))).compile().as_text())
  assert [one.times for one in found if one.opcode == 'sort'] == [5]


def test_causes_are_parts_of_a_network():
  def launch(origin):
    return launches.Launch('a', 'fusion', 'kLoop', 'f32[2]', origin, 2)

  block = 'jit(train_step)/transpose(jvp(ConvNeXt))/stage2_block0'
  origins = {
    f'{block}/dwconv/jit(_contextual_sum)/while/body/add': 'contextual convolutions',
    f'{block}/dwconv/dwconv._sampling_branch/sampling_out/conv': 'their branches',
    f'{block}/dwconv/cond/conv_general_dilated': 'convolutions',
    f'{block}/norm/mul': 'norms',
    f'{block}/pwconv1/dot_general': 'pointwise layers',
    f'{block}/add': 'activations, scales, residuals',
    'jit(train_step)/ConvNeXt/contextualizer.select/sort': 'classes and contexts',
    'jit(train_step)/optimizer/mul': 'optimizer',
    '': 'other',
  }
  for origin, cause in origins.items():
    assert causes.by_cause([launch(origin)]) == {cause: 2}
  assert causes.largest(launches.launches(TEXT), 1) == ['0.0 MB ((f32[8,4]), f32[8,4], u32[])']


def test_a_contextual_convolution_is_known_by_the_name_that_jax_gives_it():
  """Also under a gradient, in the program that XLA makes for the CPU."""
  shapes = (1, 3, 3, 2), (3, 3, 1, 2), (1, 3, 3, 2), (1, 3, 3, 9, 2)
  arrays = [np.ones(shape, np.float32) for shape in shapes]
  run = jax.grad(lambda *arrays: jnp.sum(contextual_depthwise_conv(*arrays, padding=1)))
  found = causes.by_cause(launches.launches(jax.jit(run).lower(*arrays).compile().as_text()))
  assert found['contextual convolutions'] > 9


def numbers(launched=10, temp_bytes=1000):
  return record.Numbers(launched, temp_bytes, {'norms': launched}, 1.5)


def test_a_row_is_worse_if_it_launches_more_or_keeps_more():
  assert record.complaint(numbers(), numbers()) == ''
  assert record.complaint(numbers(9, 1019), numbers()) == ''
  assert record.complaint(numbers(11), numbers()) == '11 launches instead of 10'
  assert record.complaint(numbers(10, 3_000_000), numbers(10, 1_000_000)) == '3.0 MB instead of 1.0'
  assert '--record' in record.complaint(numbers(), None)


def test_each_compiler_and_card_has_a_table_of_its_own(tmp_path):
  file = tmp_path / 'table.json'
  record.Record('h100', 'plugin 1', file).write('a', numbers(1))
  record.Record('h100', 'plugin 2', file).write('a', numbers(2))
  record.Record('a100', 'plugin 1', file).write('b', numbers(3))
  first = record.Record('h100', 'plugin 1', file)
  first.write('b', numbers(4))
  assert {name: row.launches for name, row in record.Record('h100', 'plugin 1', file).rows.items()} == {
    'a': 1,
    'b': 4,
  }
  assert record.Record('h100', 'plugin 2', file).rows == {'a': numbers(2)}
  assert record.Record('h200', 'plugin 1', file).rows == {}
  assert [path.name for path in tmp_path.iterdir()] == ['table.json']


def test_what_is_missing_is_said_in_a_line(monkeypatch, capsys):
  def version(name):
    raise importlib.metadata.PackageNotFoundError(name)

  monkeypatch.setattr(importlib.metadata, 'version', version)
  with pytest.raises(SystemExit, match=r"compiler for CUDA is not installed: .*'\.\[gpu-program\]'"):
    program.main([])
  monkeypatch.setattr(importlib.metadata, 'version', lambda name: '0.0.1')
  with pytest.raises(SystemExit, match=f'jax-cuda13-plugin 0.0.1 does not fit jax {jax.__version__}: in an '):
    program.main([])
  for arguments, words in ((['--only', '('], 'no regular expression'), (['--check', '--record'], 'take one')):
    with pytest.raises(SystemExit):
      program.main(arguments)
    assert words in capsys.readouterr().err


def run_program(monkeypatch, tmp_path, *arguments, launched=10):
  """The program with a compiler that needs `launched` for everything."""
  monkeypatch.setattr(target, 'compiler', lambda: 'plugin 1')
  monkeypatch.setattr(target, 'without_devices', lambda: None)
  monkeypatch.setattr(program, 'numbers_of', lambda *arguments: (numbers(launched), ['1.0 MB f32[2] a']))
  monkeypatch.setattr(record.Record.__init__, '__defaults__', (tmp_path / 'table.json',))
  return program.main(['--only', 'training step ctx_convnext_mini|selection', *arguments])


def test_a_program_that_launches_more_than_recorded_fails_the_check(monkeypatch, tmp_path, capsys):
  assert run_program(monkeypatch, tmp_path, '--check') == 1
  assert capsys.readouterr().out.count('not recorded for this compiler') == 2
  assert run_program(monkeypatch, tmp_path, '--record') == 0
  assert '  by cause: norms 10\n  1.0 MB f32[2] a\n' in capsys.readouterr().out
  assert run_program(monkeypatch, tmp_path, '--check') == 0
  assert run_program(monkeypatch, tmp_path, '--check', '--brief', launched=11) == 1
  shown = capsys.readouterr().out
  assert 'selection of classes, 128 x 1000: 11 (10), 0.0 MB (0.0 MB); compiled in 2 s' in shown
  assert 'error: training step ctx_convnext_mini, 8 images of 64 px: 11 launches instead of 10' in shown


def test_the_recorded_table_is_of_the_pinned_versions_and_within_its_bounds():
  """What the docs claim of the H100, for both pinned versions of jax."""
  tables = json.loads(record.FILE.read_text())['h100']
  assert list(tables) == ['jax-cuda13-plugin 0.10.2', 'jax-cuda13-plugin 0.12.0.1']
  for rows in tables.values():
    for name, row in rows.items():
      if name.startswith('contextual'):
        assert row['launches'] <= (45 if name.endswith('forward') else 160), name
    assert rows['contextual depthwise 7x7 28x28x192, forward']['temp_bytes'] < 124e6
    assert rows['contextual depthwise 7x7 28x28x192, with gradients']['temp_bytes'] < 336e6
    assert rows['contextual dense 3x3 28x28x128, forward']['temp_bytes'] < 65e6
