"""What every analysis starts from: runs, one beside another, test images, one pass over them all, files."""

import json

import jax.numpy as jnp
import numpy as np
import pixel_family
import pytest
from run_files import make_run

from ctx_flax.analysis.all_images import over_images
from ctx_flax.analysis.figures import new_figure, save
from ctx_flax.analysis.images import chosen_images
from ctx_flax.analysis.records import plain, save_csv, save_json
from ctx_flax.analysis.run import open_beside, open_run
from ctx_flax.data import sources
from ctx_flax.training import restore
from ctx_flax.training.halt import Halt, bad_data


@pytest.fixture(scope='module', autouse=True)
def family():
  """What is looked at here hardly depends on the network: one that compiles in no time."""
  with pixel_family.known():
    yield


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  config = pixel_family.four_stages()
  return open_run(config, make_run(config, tmp_path_factory.mktemp('analysis') / 'a-run'))


def test_averaged_weights_where_the_run_keeps_them(run):
  assert (run.title, run.weights, run.class_counts) == ('a-run, step 2', 'EMA', (8, 6, 4))
  held = restore.read_weights(run.workdir).arrays['params/contextualizer/class_embedding']
  np.testing.assert_array_equal(run.variables['params']['contextualizer']['class_embedding'], held)
  config = run.config.copy_and_resolve_references()
  config.eval.weights = 'raw'
  raw = open_run(config, run.workdir)
  assert raw.weights == 'raw'
  assert not np.array_equal(raw.variables['params']['contextualizer']['class_embedding'], held)


def test_one_pass_over_all_images(run):
  """In order, each once, and what is kept is the network's output for that very image."""
  taken = lambda out, labels: {'scores': out['scores4'], 'twice': 2 * labels}
  found = over_images(run, taken, 'scores')
  source = sources.open_source(run.config.data, 'test')
  assert found['index'].tolist() == list(range(360)) and found['scores'].shape == (360, 10)
  np.testing.assert_array_equal(found['label'], [source[i]['label'] for i in range(360)])
  np.testing.assert_array_equal(found['twice'], 2 * found['label'])
  some = (0, 7, 359)
  images = chosen_images(run, '', some, 'grad_cam')
  assert images.labels.tolist() == [source[i]['label'] for i in some] and images.names[1] == source.name(7)
  _, out = run.apply(run.variables, images.arrays)
  np.testing.assert_allclose(found['scores'][list(some)], out['scores4'], rtol=1e-4, atol=1e-4)
  fewer = over_images(run, taken, 'scores', limit=130)
  np.testing.assert_array_equal(fewer['scores'], found['scores'][:130])


def test_images_that_cannot_be_read_are_left_out(run, capsys):
  class Holes:
    num_classes, class_names = run.num_classes, run.class_names

    def __len__(self):
      return 250

    def name(self, index):
      return f'image {index}'

    def __getitem__(self, index):
      if index in self.holes:
        raise OSError('it is gone')
      return run.source[index]

  source = Holes()
  source.holes = {0, 121, 249}
  taken = lambda out, _: {'best': out['scores4'].argmax(-1)}
  found = over_images(run, taken, 'best', source)
  assert found['index'].tolist() == [i for i in range(250) if i not in source.holes]
  np.testing.assert_array_equal(found['label'], [run.source[int(i)]['label'] for i in found['index']])
  assert 'image 121: it is gone' in capsys.readouterr().out
  source.holes = set(range(250))
  with pytest.raises(Halt, match='none of the images could be read') as halted, bad_data():
    over_images(run, taken, 'best', source)
  assert halted.value.status == 2


def test_pixels_are_what_the_network_sees(run):
  images = chosen_images(run, '', (3,), 'grad_cam')
  mean, std = np.float32(run.config.data.mean), np.float32(run.config.data.std)
  np.testing.assert_allclose(images.pixels / 255, images.arrays * std + mean, atol=0.5 / 255 + 1e-6)


def test_a_second_run_by_its_own_config(run, tmp_path, monkeypatch):
  config = pixel_family.make_plain(pixel_family.four_stages())
  config.model.dims = (3, 4, 5, 6)
  make_run(config, tmp_path / 'plain')
  beside = open_beside(run, tmp_path / 'plain', 'report.beside')
  assert not beside.model.contextual and beside.model.dims == (3, 4, 5, 6) and beside.class_counts == ()
  assert run.model.contextual and run.config.model.name == 'ctx_four_pixels'  # untouched
  monkeypatch.setenv('HOME', str(tmp_path))
  assert open_beside(run, '~/plain', 'grad_cam.plain').workdir == tmp_path / 'plain'


def test_a_second_run_that_does_not_fit(run, tmp_path):
  with pytest.raises(ValueError, match=r"grad_cam\.plain is '.*', which holds no config\.json"):
    open_beside(run, tmp_path, 'grad_cam.plain')
  config = pixel_family.four_stages()
  config.data.update(name='glyphs', classes=12, images_per_class=5)
  config.model.update(num_classes=12)
  make_run(config, tmp_path / 'glyphs')
  with pytest.raises(ValueError, match=r'a run on 12 classes of glyphs: they are not the 10 of'):
    open_beside(run, tmp_path / 'glyphs', 'report.beside')
  path = tmp_path / 'glyphs' / 'config.json'
  values = json.loads(path.read_text())
  values['model']['colour'] = 'red'
  path.write_text(json.dumps(values))
  with pytest.raises(ValueError, match=r"config\.json: unknown config field 'model\.colour'"):
    open_beside(run, tmp_path / 'glyphs', 'report.beside')


def test_images_out_of_range(run):
  for indices in ((), (0, 360), (-1,)):
    with pytest.raises(ValueError, match=r'offsets\.indices is .*: the test images are 0 to 359'):
      chosen_images(run, '', indices, 'offsets')


def test_figures_are_written_twice_and_the_same_each_time(tmp_path):
  def drawn():
    figure, axes = new_figure(1, 2)
    axes[0, 1].plot([1, 2], [3, 4])
    axes[0, 1].set_title('Grüße, $N_2$')
    return figure

  first = [path.read_bytes() for path in save(drawn(), tmp_path / 'a' / 'one')]
  assert [path.name for path in save(drawn(), tmp_path / 'a' / 'one')] == ['one.png', 'one.svg']
  assert first == [(tmp_path / 'a' / f'one.{kind}').read_bytes() for kind in ('png', 'svg')]
  assert first[0].startswith(b'\x89PNG') and 'Grüße'.encode() in first[1]  # text stays text
  assert {path.name for path in (tmp_path / 'a').iterdir()} == {'one.png', 'one.svg'}


def test_numbers_as_json(tmp_path):
  values = {3: np.array([[1.5, np.nan]]), 'b': (np.int32(2), np.bool_(True), jnp.inf), 'c': None, 'd': 'x'}
  assert plain(values) == {'3': [[1.5, None]], 'b': [2, True, None], 'c': None, 'd': 'x'}
  save_json(values, tmp_path / 'x.json')
  assert json.loads((tmp_path / 'x.json').read_text())['b'] == [2, True, None]


def test_tables_as_csv(tmp_path):
  save_csv({'class': ['a,b', 'ß'], 'share': [0.5, 1]}, tmp_path / 'x.csv')
  assert (tmp_path / 'x.csv').read_text() == 'class,share\n"a,b",0.5\nß,1\n'


def test_one_process_only(run, monkeypatch):
  monkeypatch.setattr('jax.process_count', lambda: 2)
  with pytest.raises((ValueError, Halt), match='runs in one process'):
    open_run(run.config, run.workdir)
