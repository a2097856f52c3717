"""The linear probe: heads on features that are extracted once, and the data set of birds."""

import json
import shutil
from collections.abc import Callable

import jax
import numpy as np
import pixel_family
import pytest
from initial_values import initial_values
from PIL import Image

from configs import linear_probe_cars
from ctx_flax.data import pipeline, sources
from ctx_flax.downstream import features, linear_probe
from ctx_flax.models import ResNet, create_model
from ctx_flax.models.weights import save_weights
from ctx_flax.training.halt import Halt


@pytest.fixture(scope='module', autouse=True)
def family():
  """What is looked at here hardly depends on the network: one that compiles in no time."""
  with pixel_family.known():
    yield


@pytest.fixture(scope='module')
def networks(tmp_path_factory):
  """Files of a contextual and a plain network of another number of classes than the images have."""
  folder = tmp_path_factory.mktemp('networks')
  paths = {}
  for name in ('ctx_four_pixels', 'four_pixels'):
    keywords = {'name': name, 'num_classes': 20, 'depths': (1, 1, 1, 1), 'dims': (4, 6, 8, 12)}
    if name.startswith('ctx'):
      keywords['embed_dim'] = 16
    model = create_model(**keywords)
    variables = initial_values(model)
    paths[name] = str(folder / f'{name}.safetensors')
    save_weights(paths[name], variables, model=keywords)
  return paths


def settings(networks, jpeg_folder, tmp_path, **changes):
  config = linear_probe_cars.get_config('size=32,batch=8')
  config.data.update(path=str(jpeg_folder), workers=0, threads=0)
  config.probe.update(
    weights=networks['ctx_four_pixels'],
    plain_weights=networks['four_pixels'],
    iterations=60,
    learning_rate=0.02,
    batch_size=16,
    seeds=2,
    cache=str(tmp_path / 'cache'),
    **changes,
  )
  return config


def test_both_networks_in_one_report(networks, jpeg_folder, tmp_path, capsys, monkeypatch):
  config = settings(networks, jpeg_folder, tmp_path)
  report = linear_probe.linear_probe(config, tmp_path / 'probe')
  assert list(report) == ['contextual', 'plain']
  for row in report.values():
    # One image of each part is damaged.
    assert row['images'] == [47, 37] and len(row['top1']) == 2
    assert all(top1 <= top5 for top1, top5 in zip(row['top1'], row['top5'], strict=True))
    assert min(row['train_top1']) > 1.5 / 12  # colours are easy, even for networks that have learned nothing
  written = capsys.readouterr().out
  assert 'ctx_four_pixels' in written and ' ± ' in written and written.count('unreadable image left out') == 4
  saved = json.loads((tmp_path / 'probe' / 'linear_probe.json').read_text())
  assert saved['networks'] == report and saved['config']['probe']['iterations'] == 60

  # Once more: nothing is extracted, and the same comes out.
  monkeypatch.setattr(features, '_extract_parts', None)
  assert linear_probe.linear_probe(config, tmp_path / 'probe') == report
  assert 'training images: 48 images, from ' in capsys.readouterr().out


def test_an_extraction_that_was_killed_goes_on(networks, jpeg_folder, tmp_path, monkeypatch):
  monkeypatch.setattr(features, 'PART', 2)
  config = settings(networks, jpeg_folder, tmp_path)
  model, variables, _ = linear_probe.network(networks['four_pixels'], 'four_pixels', config)
  source = sources.open_source(config.data, 'test')
  whole = features.extract(model, variables, source, config, config.probe.cache, 'test')
  (folder,) = (tmp_path / 'cache').iterdir()
  assert sorted(path.name for path in folder.iterdir()) == ['00000.npz', '00001.npz', '00002.npz']
  (folder / '00002.npz').unlink()
  starts = []
  original = pipeline.eval_batches
  monkeypatch.setattr(
    pipeline,
    'eval_batches',
    lambda *args, start, **more: starts.append(start) or original(*args, start=start, **more),
  )
  again = features.extract(model, variables, source, config, config.probe.cache, 'test')
  assert starts == [4]
  for expected, found in zip(whole, again, strict=True):
    np.testing.assert_array_equal(found, expected)
  # What the features are: the mean over the pixels of the last stage.
  batch = next(original(source, config))
  _, out = jax.jit(model.apply)(variables, batch['image'])
  kept = batch['weight'] > 0
  np.testing.assert_allclose(
    whole[0][: kept.sum()], np.mean(out['stage4'], (1, 2))[kept], rtol=1e-4, atol=1e-5
  )


def test_the_key_of_the_cache(networks, jpeg_folder, tmp_path):
  config = settings(networks, jpeg_folder, tmp_path)
  model, variables, _ = linear_probe.network(networks['four_pixels'], 'four_pixels', config)
  source = sources.open_source(config.data, 'train')
  keys = {features.key(model, variables, source, config)}
  assert features.key(model, jax.tree.map(np.asarray, variables), source, config) in keys
  keys.add(features.key(model, jax.tree.map(lambda x: x + 1e-6, variables), source, config))
  keys.add(features.key(model, variables, sources.open_source(config.data, 'test'), config))
  for group, field, value in (
    ('data', 'image_size', 40),
    ('data', 'mean', (0.5,)),
    ('eval', 'crop_ratio', 1.0),
  ):
    changed = config.copy_and_resolve_references()
    changed[group][field] = value
    keys.add(features.key(model, variables, source, changed))
  copied = tmp_path / 'copy'
  shutil.copytree(jpeg_folder, copied)
  changed = config.copy_and_resolve_references()
  changed.data.path = str(copied)
  Image.new('RGB', (40, 40)).save(copied / 'train' / 'class00' / '000.jpg')
  keys.add(features.key(model, variables, sources.open_source(changed.data, 'train'), changed))
  assert len(keys) == 7


def test_features_of_a_network_with_a_function_of_its_own_are_never_kept(tmp_path, capsys, monkeypatch):
  folders = []
  monkeypatch.setattr(features, '_extract_into', lambda folder, *_: folders.append(folder))

  class Own(ResNet):
    shift: Callable = lambda x: x

  assert features.own_functions(Own()) == []
  for factor in (2, 3):  # functions whose names do not tell them apart
    model = Own(shift=lambda x, factor=factor: factor * x)
    features.extract(model, {}, None, None, tmp_path, 'test')
  assert folders[0] != folders[1] and list(tmp_path.iterdir()) == []
  assert (
    'test: not kept for later, because the network has a function of its own: shift\n'
    in capsys.readouterr().out
  )


def test_a_head_learns_what_is_linear():
  rng = np.random.default_rng(0)
  centres = rng.normal(size=(5, 16))
  labels = np.repeat(np.arange(5), 40).astype(np.int32)
  data = (centres[labels] + 0.1 * rng.normal(size=(200, 16))).astype(np.float32)
  probe = linear_probe_cars.get_config().probe
  probe.update(iterations=300, batch_size=64, learning_rate=1e-2)
  head = linear_probe.fit_head(data, labels, 5, probe, seed=0)
  assert linear_probe.accuracy(head, (data, labels), 1) == 1.0
  other = linear_probe.fit_head(data, labels, 5, probe, seed=1)
  assert not np.array_equal(head['kernel'], other['kernel'])
  again = linear_probe.fit_head(data, labels, 5, probe, seed=0)
  np.testing.assert_array_equal(head['kernel'], again['kernel'])


def test_one_step_of_the_head_by_hand():
  """AdamW's first step is the rate against the gradient's sign, and the decay, whatever its size."""
  probe = linear_probe_cars.get_config().probe
  assert (probe.iterations, probe.batch_size, probe.learning_rate, probe.weight_decay) == (
    3000,
    512,
    1e-3,
    1e-5,
  )
  probe.update(iterations=1, learning_rate=0.5, weight_decay=0.1)
  data, labels = np.eye(2, dtype=np.float32) * 3, np.arange(2, dtype=np.int32)
  probe.learning_rate = 0.0
  start = linear_probe.fit_head(data, labels, 2, probe, seed=0)
  probe.learning_rate = 0.5
  head = linear_probe.fit_head(data, labels, 2, probe, seed=0)
  sign = 2 * np.eye(2) - 1  # each feature speaks for its own class
  np.testing.assert_allclose(
    head['kernel'], start['kernel'] + 0.5 * (sign - 0.1 * start['kernel']), atol=1e-5
  )


def test_accuracy_counts_ranks():
  head = {'kernel': np.eye(3, dtype=np.float32), 'bias': np.zeros(3, np.float32)}
  scores = np.array([[3, 2, 1], [1, 1, 0], [0, 1, 1]], np.float32)
  assert linear_probe.accuracy(head, (scores, np.array([0, 1, 2])), 1) == pytest.approx(
    1 / 3
  )  # ties: lower class
  assert linear_probe.accuracy(head, (scores, np.array([0, 1, 2])), 2) == 1


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'weights': '', 'plain_weights': ''}, 'give --config.probe.weights=FILE'),
    ({'weights': 'none.pth'}, 'none.pth does not exist'),
    ({'seeds': 0}, 'probe.seeds must be 1 or more'),
    ({'learning_rate': -1.0}, 'probe.learning_rate must be 0 or more'),
  ],
)
def test_mistakes(networks, jpeg_folder, tmp_path, changes, message):
  config = settings(networks, jpeg_folder, tmp_path)
  config.probe.update(changes)
  with pytest.raises(Halt, match=message) as halt:
    linear_probe.linear_probe(config, tmp_path / 'probe')
  assert halt.value.status == 2 and not (tmp_path / 'probe').exists()


def test_a_cache_that_cannot_be_written_is_told(networks, jpeg_folder, tmp_path):
  (tmp_path / 'file').write_text('')
  config = settings(networks, jpeg_folder, tmp_path)
  config.probe.cache = str(tmp_path / 'file' / 'cache')
  with pytest.raises(Halt, match=r'cache/.* could not be written: .*Not a directory') as halt:
    linear_probe.linear_probe(config, tmp_path / 'probe')
  assert halt.value.status == 1


def test_networks_that_changed_places_are_told(networks, jpeg_folder, tmp_path):
  config = settings(networks, jpeg_folder, tmp_path)
  config.probe.plain_weights = networks['ctx_four_pixels']
  with pytest.raises(Halt, match='holds ctx_four_pixels, which is not the plain network'):
    linear_probe.linear_probe(config, tmp_path / 'probe')
