"""An exported folder: equal to the live network for any batch, with jax and numpy alone."""

import ast
import json
import runpy
import sys

import jax
import numpy as np
import pixel_family
import pytest
from run_files import make_run

from ctx_flax.downstream.export import PLATFORMS, export
from ctx_flax.models import create_model
from ctx_flax.models.weights import load_weights
from ctx_flax.training import restore
from ctx_flax.training.halt import Halt


@pytest.fixture(scope='module', autouse=True)
def family():
  """What is looked at here hardly depends on the network: one that compiles in no time."""
  with pixel_family.known():
    yield


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  """(folder, config) of an exported run that had come to step 2."""
  config = pixel_family.four_stages()
  return export(config, make_run(config, tmp_path_factory.mktemp('exported') / 'run')), config


def test_equal_to_the_live_network(exported, monkeypatch):
  folder, _ = exported
  # As somebody who has only the folder, jax and numpy.
  monkeypatch.setitem(sys.modules, 'ctx_flax', None)
  network, about = runpy.run_path(str(folder / 'load.py'))['load'](str(folder))
  monkeypatch.undo()
  keywords = json.loads(about['model'])
  variables, _ = load_weights(folder / 'weights.safetensors')
  assert 'class_tables' in variables
  del variables['class_tables']
  live = jax.jit(
    create_model(**{n: tuple(v) if isinstance(v, list) else v for n, v in keywords.items()}).apply
  )
  assert json.loads(about['class_names']) == [str(digit) for digit in range(10)]
  assert json.loads(about['class_counts']) == [8, 6, 4]
  images = np.random.default_rng(0).normal(size=(7, 32, 32, 3)).astype(np.float32)
  expected = np.asarray(live(variables, images)[0])
  assert np.isinf(expected).any(1).all()
  for batch in (1, 7):
    found = np.asarray(network(images[:batch]))
    assert found.shape == (batch, 10)
    np.testing.assert_allclose(found, expected[:batch], rtol=1e-5, atol=1e-5)


def test_averaged_weights_are_exported_where_there_are_any(exported):
  folder, _ = exported
  variables, about = load_weights(folder / 'weights.safetensors')
  assert about['weights'] == 'EMA' and about['step'] == 2
  found = restore.read_weights(folder.parent)
  for name, value in found.arrays.items():
    collection, *path = name.split('/')
    node = variables[collection]
    for part in path:
      node = node[part]
    np.testing.assert_array_equal(node, value)


def test_a_run_starts_from_an_export(exported):
  folder, _ = exported
  found = restore.read_weights(folder / 'weights.safetensors')
  assert {name.split('/')[0] for name in found.arrays} == {'params'}
  assert found.about['model']['class_counts'] == [8, 6, 4]


def test_the_loader_is_short_and_needs_little(exported):
  folder, _ = exported
  tree = ast.parse((folder / 'load.py').read_text())
  imported = {
    alias.name.split('.')[0]
    for node in ast.walk(tree)
    if isinstance(node, ast.Import)
    for alias in node.names
  }
  assert imported == {'functools', 'json', 'jax', 'numpy'}
  (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
  assert function.end_lineno - function.lineno + 1 <= 10


def test_readme_tells_sizes_and_input(exported):
  folder, config = exported
  text = (folder / 'README.md').read_text()
  size = (folder / 'weights.safetensors').stat().st_size / 1e6
  parameters = sum(value.size for name, value in restore.read_weights(folder.parent).arrays.items())
  assert f'| {size:.2f} |' in text and f'{parameters:,} parameters' in text
  assert 'float32 (b, 32, 32, 3) -> (b, 10)' in text and f'{config.data.mean[0]:.6g}' in text
  assert 'consider 8, 6, 4 classes' in text


def test_without_the_data_classes_have_numbers(exported, tmp_path, capsys):
  folder, config = exported
  config = config.copy_and_resolve_references()
  config.model.num_classes = 0
  config.data.update(name='image_folder', path=str(tmp_path / 'gone'))
  again = export(config, folder.parent)
  assert 'the classes are called by their numbers: data.path is' in capsys.readouterr().out
  assert load_weights(again / 'weights.safetensors')[1]['class_names'] == [str(i) for i in range(10)]
  assert [path.name for path in folder.parent.glob('export*')] == ['export']  # nothing of the one before


def test_nothing_to_export(tmp_path):
  with pytest.raises(Halt, match='does not exist: there is no checkpoint') as halt:
    export(pixel_family.four_stages(), tmp_path / 'none')
  assert halt.value.status == 2


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ctx_convnext_mini', 'ctx_resnet_mini'])
def test_contextual_networks_are_exported_for_any_batch_and_platform(name):
  """Other platforms run other code, which the export traces with a batch of unknown size."""
  model = create_model(name, num_classes=10)
  variables = jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32)))
  (b,) = jax.export.symbolic_shape('b')
  images = jax.ShapeDtypeStruct((b, 64, 64, 3), np.float32)
  network = jax.jit(lambda variables, images: model.apply(variables, images, train=False)[0])
  exported = jax.export.export(network, platforms=PLATFORMS)(variables, images)
  assert jax.export.deserialize(exported.serialize()).platforms == tuple(PLATFORMS)
