"""The benchmark for GPUs at tiny sizes on a CPU: what it runs, records, continues and refuses."""

import dataclasses
import json
import os
import socket
import subprocess
import sys

import pytest
from program import ROOT

from benchmarks.gpu import catalogue, program, sizes
from benchmarks.gpu.rows import Record, Row, Tally, WrongFile, described, run_all, table
from benchmarks.gpu.sizes import SMOKE

CARD = {'card': 'a card', 'versions': {'jax': '1.0', 'flax': '2.0'}}
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
