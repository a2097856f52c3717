"""Terms of accuracy and loss by hand, their tables and figures, and networks without an adaptation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pixel_family
import pytest
import toy_family
from steps import deciding

from ctx_flax.analysis import context_use, context_use_figures
from ctx_flax.analysis.context_passes import Observed
from ctx_flax.analysis.context_terms import contexts_of, stage_terms, without


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
