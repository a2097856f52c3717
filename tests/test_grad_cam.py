"""What is explained and how it is drawn, and the mode from end to end."""

import json
import pathlib
import types

import jax
import numpy as np
import pytest
from initial_values import initial_values, moved
from networks import CONTEXTUAL, CONVNEXT, TINY
from PIL import Image
from run_files import make_run
from tiny import tiny_config

from ctx_flax.analysis import figures, grad_cam
from ctx_flax.analysis.images import Images
from ctx_flax.models import create_model
from ctx_flax.training.halt import Halt


@pytest.mark.slow  # test_class_activation.py has the map of such a class
@pytest.mark.parametrize('selection', ['reduction', 'rerank'])
def test_dropped_classes(selection):
  """The first stage without the class; with 'rerank' every class is scored to the end."""
  arrays = np.random.default_rng(1).standard_normal((2, 32, 32, 3), np.float32)
  model = create_model('ctx_convnext_mini', class_selection=selection, **TINY, **CONVNEXT, **CONTEXTUAL)
  variables = moved(initial_values(model), 0.2)
  run = types.SimpleNamespace(model=model, variables=variables, apply=jax.jit(model.apply))
  found = grad_cam.outputs(run, Images(arrays, None, np.zeros(2, int), ('a', 'b')))
  counts = [np.bincount(row, minlength=5).tolist() for row in found['dropped']]
  # Of 5 classes stage 2 considers 4, stage 3 three and stage 4 two.
  assert counts == [[2, 0, 1, 1, 1] if selection == 'reduction' else [5, 0, 0, 0, 0]] * 2
  np.testing.assert_array_equal(found['probabilities'] == 0, found['dropped'] > 0)
  assert np.isfinite(found['scores']).all()


def test_a_few_at_a_time():
  """One shape for all batches, and rows in order without those that fill the last batch up."""
  shapes = []

  def double(some, others):
    shapes.append(some.shape)
    return {'sum': 2 * some + others}

  rows = np.arange(19)
  found = grad_cam.a_few_at_a_time(double, rows, rows)
  np.testing.assert_array_equal(found['sum'], 3 * rows)
  assert shapes == [(8,)] * 3


def test_rivals():
  images = Images(np.zeros((3, 1, 1, 3)), None, np.array([0, 1, -1]), ('a', 'b', 'c'))
  first = {
    'probabilities': np.array([[0.5, 0.3, 0.2], [0.2, 0.8, 0.0], [0.1, 0.0, 0.9]]),
    'scores': np.zeros((3, 3)),
  }
  second = {
    'probabilities': np.array([[0.5, 0.1, 0.4], [0.0, 1.0, 0.0], [0.1, 0.0, 0.9]]),
    'scores': np.zeros((3, 3)),
  }
  chosen = grad_cam.chosen_classes(images, {'ctx': first, 'plain': second})
  # The second network's 0.4 is the strongest of all; the last image is not known, the answer takes its place.
  assert chosen.tolist() == [[0, 2], [1, 0], [2, 0]]
  # Where all others were dropped, the scores decide.
  alone = {'probabilities': np.array([[1.0, 0, 0]]), 'scores': np.array([[9.0, -2, -1]])}
  one = Images(np.zeros((1, 1, 1, 3)), None, np.array([0]), ('a',))
  assert grad_cam.chosen_classes(one, {'ctx': alone}).tolist() == [[0, 2]]
  assert grad_cam.chosen_classes(images, {'ctx': first}, (2, 1)).tolist() == [[2, 1]] * 3


def test_classes_by_name_and_number():
  names = ('cat', 'dog', '1', 'owl')
  assert [grad_cam.class_number(given, names) for given in ('dog', 3, '0', '1')] == [1, 3, 0, 2]
  with pytest.raises(
    ValueError, match=r"holds 'dogg', which is no class of this run: the nearest name is 'dog'"
  ):
    grad_cam.class_number('dogg', names)
  with pytest.raises(ValueError, match='holds 17, which is no class of this run: they are numbered 0 to 3'):
    grad_cam.class_number(17, names)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  root = tmp_path_factory.mktemp('grad_cam')
  config, plain = tiny_config(), tiny_config()
  plain.model.name, plain.model.class_counts = 'convnext_mini', ()
  make_run(plain, root / 'plain')
  # As many images as points of a curve: one compiled shape.
  config.grad_cam.update(indices=(0, 50, 200, 359), steps=3, plain=str(root / 'plain'))
  return config, make_run(config, root / 'run')


@pytest.mark.slow
def test_two_runs(runs, capsys):
  config, workdir = runs
  found = grad_cam.grad_cam(config, workdir)
  assert set(found['maps']) == {'ctx_convnext_mini', 'convnext_mini'}
  for name, maps in found['maps'].items():
    # Images of 32 px: stage 1 is the last with a map of at least 4 x 4 but for stage 2, which has just that.
    assert maps.shape == (4, 2, 4, 4) and len(found['curves'][name]) == 4
  assert 'area of deletion' in capsys.readouterr().out
  written = json.loads((workdir / 'analysis' / 'grad_cam.json').read_text())
  assert written['stages'] == {'ctx_convnext_mini': 2, 'convnext_mini': 2}
  assert written['true'] == [str(n) for n in found['classes'][:, 0]]
  areas = written['areas']['convnext_mini']['deletion']
  for what in ('map', 'random'):
    mean = written['mean_areas']['convnext_mini']['deletion'][what]
    np.testing.assert_allclose(mean, np.mean(areas[what]), rtol=1e-6)
  area = areas['map'][0]
  curve = found['curves']['convnext_mini'][0]['deletion']['map']
  np.testing.assert_allclose(area, (curve[0] / 2 + curve[1] + curve[2] + curve[3] / 2) / 3, rtol=1e-5)
  # With nothing removed the probability is what the table says.
  np.testing.assert_allclose(curve[0], found['probabilities']['convnext_mini'][0, 0], rtol=1e-4)
  for name in ('grad_cam', 'grad_cam_curves'):
    assert {f'{name}.png', f'{name}.svg'} <= {path.name for path in (workdir / 'analysis').iterdir()}
  with np.load(workdir / 'analysis' / 'grad_cam.npz') as arrays:
    np.testing.assert_array_equal(arrays['convnext_mini'], found['maps']['convnext_mini'])


@pytest.mark.slow
def test_one_run_given_classes_and_a_map_of_one_pixel(runs, capsys):
  config = runs[0].copy_and_resolve_references()
  config.grad_cam.update(plain='', steps=0, stage=4, classes=('7', '2', '3'), method='grad_cam++')
  found = grad_cam.grad_cam(config, runs[1])
  assert found['classes'].tolist() == [[7, 2, 3]] * 4 and found['areas'] == {}
  states = {state for row in found['states']['ctx_convnext_mini'] for state in row}
  assert states <= {'constant', 'zero'}
  assert 'map constant' in capsys.readouterr().out or 'constant' not in states


def test_files(runs, tmp_path, capsys, monkeypatch):
  """Of a file nobody says what it shows: what the first network takes it for is explained."""
  monkeypatch.setattr(figures, 'DPI', 40)  # at full size they take most of the time
  config = runs[0].copy_and_resolve_references()
  # The plain run, which compiles faster: which classes are explained does not depend on the network.
  workdir = pathlib.Path(config.grad_cam.plain)
  config.model.name, config.model.class_counts = 'convnext_mini', ()
  for i in range(4):
    pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / f'{i}.png')
  config.grad_cam.update(images=str(tmp_path), steps=0, plain='', classes=())
  found = grad_cam.grad_cam(config, workdir)
  assert found['roles'] == ('predicted', 'rival') and found['maps']['convnext_mini'].shape[:2] == (4, 2)
  probabilities = found['probabilities']['convnext_mini']
  assert (probabilities[:, 0] >= probabilities[:, 1]).all()
  written = json.loads((workdir / 'analysis' / 'grad_cam.json').read_text())
  assert written['true'] == [None] * 4 and written['roles'] == ['predicted', 'rival']
  assert [said['image'] for said in written['funnels']] == [f'{tmp_path}/{i}.png' for i in range(4)]
  for said, classes, chances in zip(written['funnels'], found['classes'], probabilities, strict=True):
    assert 'true' not in said and said['classes'][0]['class'] == str(classes[0])
    np.testing.assert_allclose(said['classes'][0]['probability'], chances[0], rtol=1e-5)
  assert {'grad_cam_funnels.png', 'grad_cam_funnels.svg'} <= {
    path.name for path in (workdir / 'analysis').iterdir()
  }
  assert '0.png' in capsys.readouterr().out


def test_wrong_options_of_an_open_run(runs):
  """What calls `write` alone, as a report does, is told as well."""
  run = types.SimpleNamespace(config=runs[0].copy_and_resolve_references())
  run.config.grad_cam.stage = 7
  with pytest.raises(Halt, match=r'grad_cam\.stage is 7'):
    grad_cam.write(run)


@pytest.mark.parametrize(
  'options, message',
  [
    ({'stage': 5}, r'grad_cam\.stage is 5: it must be'),
    (
      {'method': 'gradcam'},
      r"grad_cam\.method is 'gradcam': it must be one of grad_cam, hirescam, grad_cam\+\+",
    ),
    ({'indices': (400,)}, r'grad_cam\.indices is \(400,\): the test images are 0 to 359'),
    ({'classes': ('x',)}, "holds 'x', which is no class of this run: the nearest name is '.'"),
    ({'steps': -1}, r'grad_cam\.steps must be 0'),
    ({'plain': '/nowhere'}, r"grad_cam\.plain is '/nowhere', which holds no config"),
  ],
)
def test_wrong_input(runs, options, message):
  config = runs[0].copy_and_resolve_references()
  config.grad_cam.update(options)
  with pytest.raises(Halt, match=message) as halted:
    grad_cam.grad_cam(config, runs[1])
  assert halted.value.status == 2
