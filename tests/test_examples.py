"""The examples for other projects: each trains, and imports nothing of this project but its public parts."""

import ast
import pathlib
import runpy

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = sorted(path.name for path in (ROOT / 'examples').glob('*.py'))


def test_there_is_one_of_each_kind():
  assert EXAMPLES == ['linen_model.py', 'nnx_model.py', 'ops_only.py', 'own_backbone.py']


@pytest.mark.slow
@pytest.mark.parametrize('name', EXAMPLES)
def test_example_trains(name, capsys):
  with jax.numpy_rank_promotion('allow'):  # as in a project that does not forbid it
    losses = runpy.run_path(str(ROOT / 'examples' / name))['main'](steps=40)
  assert losses[-1] < 0.7 * losses[0]
  assert ' at first, ' in capsys.readouterr().out


@pytest.mark.parametrize('name', EXAMPLES)
def test_example_takes_only_the_public_parts(name):
  tree = ast.parse((ROOT / 'examples' / name).read_text())
  ours = {
    node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and 'ctx_flax' in node.module
  }
  assert ours and ours <= {'ctx_flax.ops', 'ctx_flax.layers', 'ctx_flax.models.class_funnel'}
