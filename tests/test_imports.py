"""Imports go one way: ops -> layers -> models -> torch_weights -> training -> {downstream, analysis} ->
__main__, data -> training, configs -> training; recipes import ctx_flax.configs alone."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# room -> the rooms of this project that its files may import, beside the LEAVES
ALLOWED = {
  'ctx_flax.__init__': set(),
  'ctx_flax.files': set(),
  'ctx_flax.nearest': set(),
  'ctx_flax.configs': {'ctx_flax.configs'},
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
    'ctx_flax.configs',
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
  'configs': {'configs', 'ctx_flax.configs'},
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
  'ctx_flax.__main__': {'ctx_flax.training', 'ctx_flax.configs'},
  'main': {'ctx_flax.__main__'},
}
LEAVES = {'ctx_flax.files', 'ctx_flax.nearest'}
# What finds mistakes on the command line, before jax is imported; the program imports the rest in its main.
WITHOUT_JAX = {'absl', 'ml_collections', 'ctx_flax'}
FILES = sorted(
  path.relative_to(ROOT)
  for path in [
    *ROOT.glob('ctx_flax/**/*.py'),
    *ROOT.glob('configs/*.py'),
    *ROOT.glob('benchmarks/*.py'),
    *ROOT.glob('experiments/*.py'),
    ROOT / 'main.py',
  ]
)


def imported(path, within_functions=True):
  nodes = list(ast.walk(ast.parse((ROOT / path).read_text())))
  if not within_functions:
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
    inner = {id(node) for function in functions for node in ast.walk(function)}
    nodes = [node for node in nodes if id(node) not in inner]
  for node in nodes:
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
  allowed = ALLOWED[own] | LEAVES
  if own == 'ctx_flax.configs':
    allowed -= {'ctx_flax.files'}
  assert ours <= allowed, f'{path} imports {sorted(ours - allowed)}'


def test_mistakes_on_the_command_line_need_no_jax():
  files = [*ROOT.glob('ctx_flax/configs/**/*.py'), *ROOT.glob('configs/*.py'), ROOT / 'ctx_flax/__main__.py']
  for path in files:
    at_once = {name.split('.')[0] for name in imported(path.relative_to(ROOT), within_functions=False)}
    assert at_once <= WITHOUT_JAX | {'configs'} | sys.stdlib_module_names, f'{path} imports {sorted(at_once)}'


def test_pmap_is_said_in_one_file():
  files = [path for path in ROOT.glob('ctx_flax/**/*.py') if 'jax.pmap' in path.read_text()]
  assert [path.relative_to(ROOT).as_posix() for path in files] == ['ctx_flax/training/parallel.py']
