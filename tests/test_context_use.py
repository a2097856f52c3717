"""What the context is worth: terms by hand, other contexts one image at a time, and a run from end to end."""

import csv
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pixel_family
import pytest
import toy_family
from run_files import make_run
from steps import deciding

from ctx_flax.analysis import context_passes, context_sets, context_use, context_use_figures, figures, records
from ctx_flax.analysis.context_passes import ABLATED, Observed
from ctx_flax.analysis.context_terms import contexts_of, stage_terms, without
from ctx_flax.analysis.run import open_run
from ctx_flax.data.transforms import eval_transform
from ctx_flax.models import MODELS
from ctx_flax.training.halt import Halt

SEED = 3
ROWS = {'own', 'other_image', 'all_classes', 'confused', 'random', 'no_offsets'}


def test_terms():
  """An image that is right, one of a dropped class, one that is wrong."""
  out = {'scores1': [[3, 1, 0], [2, 1, 0], [1, 0, 0]], 'scores2': [[1, 0, 9], [1, 9, 0], [0, 1, 5]]}
  out = {name: jnp.array(value, jnp.float32) for name, value in out.items()}
  out['considered1'] = jnp.ones((3, 3), bool)
  out['considered2'] = jnp.array([[1, 1, 0], [1, 0, 1], [1, 1, 0]], bool)
  labels = jnp.array([0, 1, 0])
  terms, reranked = jax.jit(
    lambda: [stage_terms(deciding(out, s), labels) for s in ('reduction', 'rerank')]
  )()
  assert terms['correct1'].tolist() == [True, False, True]
  assert terms['correct2'].tolist() == [True, False, False]
  assert terms['counted1'].all() and 'kept1' not in terms
  assert terms['counted2'].tolist() == terms['kept2'].tolist() == [True, False, True]
  expected = [math.log(1 + math.exp(-1)), 0, math.log(1 + math.e)]
  np.testing.assert_allclose(terms['loss2'], expected, rtol=1e-6)
  assert reranked['counted2'].all() and reranked['kept2'].tolist() == [True, False, True]
  assert reranked['correct2'].tolist() == [False, True, False]


def observed(**changes):
  """Two stages, three images: stage 2 counts the first two; rows of the last one differ by `changes`."""
  right = np.array([True, True, False])
  own = {'correct1': right, 'counted1': right | True, 'loss1': np.array([1.0, 2.0, 3.0])}
  own |= {'correct2': right, 'counted2': right, 'kept2': right, 'loss2': np.array([1.0, 2.0, 0.0])}
  rows = {'own': own, 'no_offsets': own | changes}
  return Observed(np.array([0, 0, 2]), rows, 0.0, {2: 0.5}, {2: 0.25})


class Options:
  resamples, seed = 200, 0


def test_numbers():
  """Accuracy over all images, loss over those that count; a row that the network lacks is none."""
  rows = context_use.numbers_of(
    observed(correct2=np.array([True, False, False]), loss2=np.array([1.5, 2.5, 0.0])), Options
  )
  assert list(rows) == list(context_use.LABELS)
  assert {row for row, numbers in rows.items() if numbers} == {'own', 'no_offsets'}
  value = lambda row, kind, stage: rows[row][kind][stage]['value']
  assert value('own', 'accuracy', 2) == pytest.approx(2 / 3) and value('own', 'loss', 1) == 2
  assert value('own', 'loss', 2) == 1.5 and rows['own']['counted'] == {1: 1, 2: pytest.approx(2 / 3)}
  assert value('no_offsets', 'accuracy_change', 2) == pytest.approx(-1 / 3)
  change = rows['no_offsets']['loss_change'][2]  # paired: the same for all images
  assert change['value'] == 0.5
  assert rows['no_offsets']['accuracy_change'][1] == {'value': 0, 'low': 0, 'high': 0}
  assert rows['own']['recall'] == {2: pytest.approx(2 / 3)}
  lines = context_use.table(rows)
  assert lines[0] == ['its own', '66.7', '-', '1.500', '-'] and lines[1] == ["another image's", *'----']
  assert lines[6][2].startswith('-33.3 (') and lines[6][3] == '2.000'


def test_rounding_is_no_effect_in_the_figure():
  """It would fill the panel otherwise; rows that the network lacks say so."""
  loss = np.array([1 + 1e-9, 2.0, 0.0])
  figure = context_use_figures.draw(context_use.numbers_of(observed(loss2=loss), Options), 'a run')
  for panel, bound in zip(figure.axes, (0.1, 1e-3), strict=True):
    assert panel.get_xlim() == (-bound, bound)
    assert [text.get_text() for text in panel.texts] == [' not in this network'] * 6


def test_classes_without_other_contexts():
  """Of classes that have images; the table of a network that reads no contexts stands by number."""
  table = context_use.by_class(observed(correct2=np.array([True, False, False])), ['a', 'b', 'c'])
  assert table == {'class': ['a', 'c'], 'images': [2, 1], 'own': [1, 0], 'no_offsets': [0.5, 0]}


def test_the_last_way_that_is_left():
  """Without it blocks are plain, and their kernels are weighed by what the mask was."""
  model = toy_family.Toy(num_classes=4, contextual=True, mask_gain=3.0, ablate=('offsets', 'mask'))
  kernels = {'mix': {'kernel': np.ones(2)}, 'after': {'scale': np.ones(2)}}
  variables = {'params': {'stage1_block0': kernels, 'stage2_block0': kernels, 'stage2_block1': kernels}}
  network, weighed = without(model, 'kernel_delta')
  assert not network.adapts and network.contextual
  params = weighed(variables)['params']
  scales = {name: float(block['mix']['kernel'][0]) for name, block in params.items()}
  assert scales == {'stage1_block0': 1, 'stage2_block0': 1.5, 'stage2_block1': 1}
  assert params['stage2_block0']['after']['scale'][0] == 1
  network, same = without(model.clone(ablate=()), 'mask')
  assert network.ablate == ('mask',) and same(variables) is variables


def test_contexts_of_frames():
  """Every frame of a clip is given its own."""
  model = pixel_family.FourPixels(num_classes=6, contextual=True, embed_dim=4)
  sets = jax.ShapeDtypeStruct((2, 3, 7, 6), bool)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
  contexts = jax.eval_shape(lambda variables, sets: contexts_of(model, variables, sets), shapes, sets)
  assert {name: context.shape for name, context in contexts.items()} == {
    f'context{s}': (2, 7, 4) for s in (2, 3, 4)
  }


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
  assert 'upper bound' in (folder / 'context_use.svg').read_text()


def test_what_is_printed_fits_a_terminal(run, capsys, monkeypatch):
  _, found, opened, _ = run
  monkeypatch.setenv('COLUMNS', '80')
  shares = np.arange(9) / 8
  classes = {'class': [f'a class of number {i}' for i in range(9)], 'images': [20] * 9}
  classes |= {'own': shares[::-1].tolist(), 'other_image': shares.tolist()}
  context_use._print(opened, found | {'classes': classes})
  out = capsys.readouterr().out
  assert max(map(len, out.splitlines())) <= 80
  assert '…' not in out and 'upper bound' in out and 'constant mask' in out
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
