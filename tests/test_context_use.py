"""What the context is worth: other contexts one image at a time, and a run from end to end."""

import csv
import json

import jax
import numpy as np
import pixel_family
import pytest
import toy_family
from run_files import make_run

from ctx_flax.analysis import context_passes, context_sets, context_use, figures, records
from ctx_flax.analysis.context_passes import ABLATED
from ctx_flax.analysis.context_terms import stage_terms
from ctx_flax.analysis.run import open_run
from ctx_flax.data.transforms import eval_transform
from ctx_flax.models import MODELS
from ctx_flax.training.halt import Halt

SEED = 3
ROWS = {'own', 'other_image', 'all_classes', 'confused', 'random', 'no_offsets'}


@pytest.fixture(scope='module', autouse=True)
def family():
  """What is looked at here hardly depends on the network: one that compiles in no time."""
  with pixel_family.known(), pytest.MonkeyPatch.context() as patch:
    patch.setattr(figures, 'DPI', 40)  # figures at full size take seconds
    patch.setattr(context_passes, 'ABLATED', {'no_offsets': 'offsets'})  # each is compiled
    yield


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """(folder, what the mode returned, the open run, what was observed of it)."""
  config = pixel_family.four_stages()
  config.context.update(resamples=50, seed=SEED, classes=2)
  workdir = make_run(config, tmp_path_factory.mktemp('context') / 'run')
  seen = []

  def observe(run, seed):
    seen.extend((run, context_passes.observe(run, seed)))
    return seen[1]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(context_use, 'observe', observe)
    found = context_use.context_use(config, workdir)
  return workdir / 'analysis', found, *seen


def test_each_image_is_given_other_contexts(run):
  """As by `replace`, with what it, or another image, was seen to consider."""
  _, _, run, found = run
  assert set(found.terms) == ROWS
  n, counts = run.num_classes, run.class_counts
  transform = eval_transform(run.config)
  images = np.stack([transform(run.source[i]) for i in range(len(run.source))])
  labels = found.label
  _, out = run.apply(run.variables, images)
  own = stage_terms(out, labels)
  for name, value in own.items():
    np.testing.assert_allclose(found.terms['own'][name], value, atol=1e-4)
  other = context_sets.other_images(labels, SEED)
  stages = (2, 3, 4)
  random = np.stack(
    [context_sets.random_classes(i, labels[i], counts, n, SEED) for i in range(len(labels))], 1
  )
  probabilities = {s: np.zeros((n, n)) for s in stages}
  for s in stages:
    np.add.at(probabilities[s], labels, jax.nn.softmax(out[f'logits{s - 1}']))
  pairs = dict(zip(stages, counts, strict=True))
  contexts = {
    'other_image': {s: out[f'context{s}'][other] for s in stages},
    'all_classes': {s: run.model.contexts(run.variables, np.ones((len(labels), n), bool), s) for s in stages},
    'random': {s: run.model.contexts(run.variables, random[s - 2], s) for s in stages},
    'confused': {
      s: run.model.contexts(
        run.variables, context_sets.confused_classes(probabilities[s], pairs[s])[labels], s
      )
      for s in stages
    },
  }

  @jax.jit
  def given(replace):
    return stage_terms(run.model.apply(run.variables, images, replace=replace)[1], labels)

  for row, each in contexts.items():
    expected = given({f'context{s}': context for s, context in each.items()})
    for name, value in expected.items():
      np.testing.assert_allclose(found.terms[row][name], value, atol=1e-4, err_msg=f'{row} {name}')
    assert np.abs(expected['loss4'] - own['loss4']).max() > 1e-3, row  # it is another context
    np.testing.assert_array_equal(found.terms[row]['loss1'], found.terms['own']['loss1'])
  context = np.asarray(out['context3'], np.float64)
  variance = context.var(0).sum() / (context**2).sum(1).mean()
  assert found.variance[3] == pytest.approx(variance, rel=1e-4) and variance > 1e-3
  sets = np.asarray(out['considered4'])
  assert found.shared[4] == pytest.approx(context_sets.shared_classes(sets.sum(0), len(sets), counts[2]))


def test_a_run(run):
  folder, found, _, _ = run
  assert {path.name for path in folder.iterdir()} == {
    f'context_use.{kind}' for kind in ('json', 'csv', 'png', 'svg')
  }
  written = json.loads((folder / 'context_use.json').read_text())
  assert written['images'] == 360 and written['resamples'] == 50 and written['same_class'] == 0
  assert written['rows']['own']['accuracy']['4']['value'] == found['rows']['own']['accuracy'][4]['value']
  assert written['rows']['half_mask'] is None and set(written['contexts']) == {'2', '3', '4'}
  table = list(csv.DictReader((folder / 'context_use.csv').read_text().splitlines()))
  assert len(table) == 10 and sum(int(row['images']) for row in table) == 360
  gains = [float(row['own']) - float(row['other_image']) for row in table]
  assert gains == sorted(gains, reverse=True)
  for row in ROWS - {'own'}:
    for change in (found['rows'][row][f'{kind}_change'] for kind in context_use.KINDS):
      assert change[1] == {'value': 0, 'low': 0, 'high': 0}  # no context reaches stage 1
      for estimate in change.values():
        assert estimate['low'] <= estimate['value'] <= estimate['high']
  assert json.loads(json.dumps(records.plain(found)))['files'] == {'context_use': str(folder / 'context_use')}
  assert 'an oracle' in (folder / 'context_use.svg').read_text()


def test_what_is_printed_fits_a_terminal(run, capsys, monkeypatch):
  _, found, opened, _ = run
  monkeypatch.setenv('COLUMNS', '80')
  shares = np.arange(9) / 8
  classes = {'class': [f'a class of number {i}' for i in range(9)], 'images': [20] * 9}
  classes |= {'own': shares[::-1].tolist(), 'other_image': shares.tolist()}
  context_use._print(opened, found | {'classes': classes})
  out = capsys.readouterr().out
  assert max(map(len, out.splitlines())) <= 80
  assert '…' not in out and 'an oracle' in out and 'constant mask' in out
  # Two at each end; number 4 neither gains nor loses.
  assert [i for i in range(9) if f'of number {i}' in out] == [0, 1, 7, 8]


@pytest.mark.slow
def test_a_naive_network_has_one_context(tmp_path):
  config = pixel_family.four_stages()
  config.model.class_counts = (10, 10, 10)
  config.context.resamples = 2
  rows = context_use.measure(open_run(config, make_run(config, tmp_path)))
  for row in ('other_image', 'all_classes', 'confused', 'random'):
    for stage, loss in rows[row]['loss_change'].items():
      assert abs(loss['value']) < 1e-6 and rows[row]['accuracy_change'][stage]['value'] == 0


@pytest.mark.slow
def test_rows_without_an_adaptation_are_those_of_a_network_without_it(tmp_path, monkeypatch):
  """And what a network was trained without has no row."""
  for name, entry in toy_family.MODELS.items():
    monkeypatch.setitem(MODELS, name, entry)
  monkeypatch.setattr(context_passes, 'ABLATED', ABLATED)
  config = pixel_family.four_stages()
  config.model.update(name='ctx_toy', depths=(), dims=(), class_counts=(), ablate=('kernel_delta', 'context'))
  run = open_run(config, make_run(config, tmp_path))
  seen = context_passes.observe(run, SEED)
  terms, labels = seen.terms, seen.label[:20]
  assert set(terms) == {'own', 'no_offsets', 'half_mask'}
  transform = eval_transform(config)
  images = np.stack([transform(run.source[i]) for i in range(20)])
  for row, name in (('no_offsets', 'offsets'), ('half_mask', 'mask')):
    network = run.model.clone(ablate=(*run.model.ablate, name))
    expected = stage_terms(jax.jit(network.apply)(run.variables, images)[1], labels)
    np.testing.assert_allclose(terms[row]['loss3'][:20], expected['loss3'], atol=1e-4)
    assert np.abs(terms[row]['loss3'] - terms['own']['loss3']).max() > 1e-4


@pytest.mark.parametrize(
  'path, value, message',
  [
    ('context.resamples', 1, r'context\.resamples must be 2 or more, but is 1'),
    ('context.classes', 0, r'context\.classes must be 1 or more, but is 0'),
    ('model.name', 'four_pixels', 'a run of four_pixels: a plain network has no contexts'),
    (
      'model.ablate',
      ('offsets', 'mask', 'kernel_delta'),
      r'has no contextual convolutions: model\.ablate is',
    ),
  ],
)
def test_wrong_input(path, value, message, tmp_path):
  config = pixel_family.four_stages()
  group, _, name = path.partition('.')
  if name == 'name':
    pixel_family.make_plain(config)
  config[group][name] = value
  if group == 'model':
    make_run(config, tmp_path)
  with pytest.raises(Halt, match=message) as halted:
    context_use.context_use(config, tmp_path)
  assert halted.value.status == 2
