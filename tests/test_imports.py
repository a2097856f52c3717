"""Imports go one way: ops -> layers -> models -> torch_weights -> training ->
{downstream, analysis} -> main.py, data -> training, configs alone."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# room -> the rooms of this project that its files may import
ALLOWED = {
  'ctx_flax.ops': {'ctx_flax.ops'},
  'ctx_flax.layers': {'ctx_flax.ops', 'ctx_flax.layers'},
  'ctx_flax.models': {'ctx_flax.ops', 'ctx_flax.layers', 'ctx_flax.models'},
  'ctx_flax.torch_weights': {'ctx_flax.models', 'ctx_flax.torch_weights'},
  'ctx_flax.data': {'ctx_flax.data'},
  'ctx_flax.training': {
    'ctx_flax.ops',
    'ctx_flax.layers',
    'ctx_flax.models',
    'ctx_flax.torch_weights',
    'ctx_flax.data',
    'ctx_flax.training',
  },
  'ctx_flax.downstream': {
    'ctx_flax.layers',
    'ctx_flax.models',
    'ctx_flax.data',
    'ctx_flax.training',
    'ctx_flax.downstream',
  },
  'ctx_flax.analysis': {
    'ctx_flax.ops',
    'ctx_flax.layers',
    'ctx_flax.models',
    'ctx_flax.data',
    'ctx_flax.training',
    'ctx_flax.analysis',
  },
  'configs': {'configs'},
  'benchmarks': {
    'benchmarks',
    'configs',
    'ctx_flax.ops',
    'ctx_flax.layers',
    'ctx_flax.models',
    'ctx_flax.data',
    'ctx_flax.training',
  },
  'experiments': {
    'experiments',
    'benchmarks',
    'configs',
    'ctx_flax.models',
    'ctx_flax.training',
    'ctx_flax.analysis',
  },
  'main': {'ctx_flax.training', 'configs'},
}
FILES = sorted(
  path.relative_to(ROOT)
  for path in [
    *ROOT.glob('ctx_flax/*/*.py'),
    *ROOT.glob('configs/*.py'),
    *ROOT.glob('benchmarks/*.py'),
    *ROOT.glob('experiments/*.py'),
    ROOT / 'main.py',
  ]
)


def imported(path):
  for node in ast.walk(ast.parse((ROOT / path).read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      for alias in node.names:
        yield f'{node.module}.{alias.name}'


def room(name):
  parts = name.split('.')
  return '.'.join(parts[:2]) if parts[0] == 'ctx_flax' else parts[0]


@pytest.mark.parametrize('path', FILES, ids=str)
def test_imports_go_one_way(path):
  own = room('.'.join(path.with_suffix('').parts))
  assert own in ALLOWED, f'{path} is in a room that this test does not know'
  ours = {
    room(name)
    for name in imported(path)
    if name.split('.')[0] in ('ctx_flax', 'configs', 'benchmarks', 'experiments', 'main')
  }
  assert ours <= ALLOWED[own], f'{path} imports {sorted(ours - ALLOWED[own])}'


def test_pmap_is_said_in_one_file():
  files = [path for path in ROOT.glob('ctx_flax/**/*.py') if 'jax.pmap' in path.read_text()]
  assert [path.relative_to(ROOT).as_posix() for path in files] == ['ctx_flax/training/parallel.py']
