"""Imports go one way: ops -> layers -> models -> torch_weights -> training -> tasks ->
{downstream, analysis} -> __main__, data -> training, configs -> training; recipes import configs alone."""

import ast
import functools
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Files of the package that every room may import, and that import none but each other.
LEAVES = {'ctx_flax.files', 'ctx_flax.nearest', 'ctx_flax.terminal'}
NETWORKS = {'ctx_flax.ops', 'ctx_flax.layers', 'ctx_flax.models', 'ctx_flax.torch_weights'}
TRAINING = NETWORKS | {'ctx_flax.data', 'ctx_flax.configs', 'ctx_flax.training'}
CLASSIFICATION = TRAINING | {'ctx_flax.tasks.classification'}
TASKS = CLASSIFICATION | {'ctx_flax.tasks'}
ALL_TASKS = TASKS | {'ctx_flax.tasks.detection'}
# room -> the rooms of this project that its files may import, besides LEAVES; a task is one of its own
ALLOWED = {
  **{leaf: set() for leaf in LEAVES},
  'ctx_flax.__init__': set(),
  'ctx_flax.ops': {'ctx_flax.ops'},
  'ctx_flax.layers': {'ctx_flax.ops', 'ctx_flax.layers'},
  'ctx_flax.models': {'ctx_flax.ops', 'ctx_flax.layers', 'ctx_flax.models'},
  'ctx_flax.torch_weights': {'ctx_flax.models', 'ctx_flax.torch_weights'},
  'ctx_flax.data': {'ctx_flax.data'},
  'ctx_flax.configs': {'ctx_flax.configs'},
  'ctx_flax.training': TRAINING,
  # A table of names, resolved when they are needed: no task is imported.
  'ctx_flax.tasks': TRAINING | {'ctx_flax.tasks'},
  'ctx_flax.tasks.classification': CLASSIFICATION,
  'ctx_flax.tasks.video': CLASSIFICATION | {'ctx_flax.tasks.video'},
  'ctx_flax.tasks.detection': TRAINING | {'ctx_flax.tasks.detection'},
  'ctx_flax.downstream': ALL_TASKS | {'ctx_flax.downstream'},
  'ctx_flax.analysis': ALL_TASKS | {'ctx_flax.analysis'},
  'ctx_flax.__main__': {'ctx_flax.training', 'ctx_flax.configs'},
  'configs': {'configs', 'ctx_flax.configs'},
  'benchmarks': TASKS | {'benchmarks', 'configs'},
  'experiments': TASKS | {'ctx_flax.analysis', 'experiments', 'benchmarks', 'configs'},
  'main': {'ctx_flax.__main__'},
}
# Not even the LEAVES, but for the nearest name.
ALONE = {'ctx_flax.configs'}
# Modules in a chain of imports. A network is nine deep (how taps are sampled, the convolution, its gradients,
# the layer, the blocks, the family), a detector on it two more, a run of it six; an experiment of many runs
# ends the chain.
LONGEST = 20
# What finds mistakes on the command line, before jax is imported; the program imports the rest in its main.
WITHOUT_JAX = {'absl', 'ml_collections', 'ctx_flax', 'configs'} | sys.stdlib_module_names
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


def tree_of(path):
  return ast.parse((ROOT / path).read_text(encoding='utf-8'))


def imported(nodes, path):
  for node in nodes:
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      for alias in node.names:
        yield f'{node.module}.{alias.name}'


def room(name):
  parts = name.split('.')
  if parts[0] != 'ctx_flax':
    return parts[0]
  own_task = parts[1:2] == ['tasks'] and len(parts) > 2 and ROOT.joinpath(*parts[:3]).is_dir()
  return '.'.join(parts[: 3 if own_task else 2])


@pytest.mark.parametrize('path', FILES, ids=str)
def test_imports_go_one_way(path):
  own = room('.'.join(path.with_suffix('').parts))
  assert own in ALLOWED, f'{path} is in a room that this test does not know'
  nodes = ast.walk(tree_of(path))
  ours = {
    room(name)
    for name in imported(nodes, path)
    if name.split('.')[0] in ('ctx_flax', 'configs', 'benchmarks', 'experiments', 'main')
  }
  allowed = ALLOWED[own] | ({'ctx_flax.nearest'} if own in ALONE else LEAVES)
  assert ours <= allowed, f'{path} imports {sorted(ours - allowed)}'


def test_chains_of_imports_stay_short():
  """Of the package's modules, by what each imports when it is imported itself."""
  paths = {}
  for path in FILES:
    if path.parts[0] == 'ctx_flax':
      paths['.'.join(path.with_suffix('').parts).removesuffix('.__init__')] = path

  def module(name):
    return name if name in paths else name.rpartition('.')[0]

  @functools.cache
  def chain(name):
    body = tree_of(paths[name]).body
    others = {module(other) for other in imported(body, paths[name])} - {name}
    return (name, *max((chain(other) for other in others if other in paths), key=len, default=()))

  longest = max(map(chain, paths), key=len)
  assert len(longest) <= LONGEST, ' -> '.join(longest)


def test_mistakes_on_the_command_line_need_no_jax():
  for path in FILES:
    if (
      path.parts[0] == 'configs'
      or path.parts[:2] == ('ctx_flax', 'configs')
      or path == pathlib.Path('ctx_flax/__main__.py')
    ):
      nodes = list(ast.walk(tree_of(path)))
      functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
      inner = {id(node) for function in functions for node in ast.walk(function)}
      at_once = {name.split('.')[0] for name in imported((n for n in nodes if id(n) not in inner), path)}
      assert at_once <= WITHOUT_JAX, f'{path} imports {sorted(at_once)}'


def test_pmap_is_said_in_one_file():
  files = [path for path in ROOT.glob('ctx_flax/**/*.py') if 'jax.pmap' in path.read_text(encoding='utf-8')]
  assert [path.relative_to(ROOT).as_posix() for path in files] == ['ctx_flax/training/parallel.py']
