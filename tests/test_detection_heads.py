"""Heads of detectors: MMDetection's values, statistics of valid regions alone, initial values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_detectors import part_variables

from ctx_flax.layers import BatchNorm
from ctx_flax.models.detection.box_heads import BoxHead
from ctx_flax.models.detection.mask_head import MaskHead
from ctx_flax.models.weights import flatten


def test_box_head_of_mmdetection(golden):
  """In training, its regions among others that do not count; then in a test with these statistics."""
  arrays = golden('coco/heads')
  x = jnp.asarray(arrays['x'])
  head = BoxHead(3, convs=4, fcs=1, features=8, hidden=16)
  variables = part_variables(head, arrays, 'box_head0', 'roi_head.bbox_head.', x)
  others = 5 * np.random.default_rng(0).standard_normal(x.shape, np.float32)
  mixed, valid = np.concatenate([others, x]), np.arange(2 * len(x)) >= len(x)
  train = jax.jit(functools.partial(head.apply, train=True, mutable=['batch_stats']))
  (logits, deltas), updated = train(variables, mixed, valid)
  np.testing.assert_allclose(logits[len(x) :], arrays['train_cls'], rtol=0, atol=2e-5)
  np.testing.assert_allclose(deltas[len(x) :].reshape(len(x), -1), arrays['train_reg'], rtol=0, atol=2e-5)
  after = {**arrays, **{f'param.{name[6:]}': v for name, v in arrays.items() if name.startswith('after.')}}
  expected = part_variables(head, after, 'box_head0', 'roi_head.bbox_head.', x)
  for name, value in flatten(updated).items():
    np.testing.assert_allclose(value, flatten(expected)[name], rtol=2e-5, atol=1e-6, err_msg=name)
  logits, deltas = jax.jit(head.apply)(expected, x)
  np.testing.assert_allclose(logits, arrays['eval_cls'], rtol=0, atol=2e-5)
  np.testing.assert_allclose(deltas.reshape(len(x), -1), arrays['eval_reg'], rtol=0, atol=2e-5)


def test_mask_head_of_mmdetection(golden):
  arrays = golden('coco/heads')
  x = jnp.asarray(arrays['mask_x'])
  head = MaskHead(3, 8)
  arrays |= {name.removeprefix('mask_'): v for name, v in arrays.items() if name.startswith('mask_param.')}
  variables = part_variables(head, arrays, 'mask_head0', 'roi_head.mask_head.', x)
  np.testing.assert_allclose(jax.jit(head.apply)(variables, x), arrays['mask_out'], rtol=0, atol=2e-5)


@functools.partial(jax.jit, static_argnames='norm')
def normed(norm, variables, x, valid):
  return norm.apply(variables, x, train=True, valid=valid, mutable=['batch_stats'])


def test_statistics_of_valid_rows():
  """Mean and biased variance of the valid rows; the running ones move by a tenth, the variance unbiased."""
  rng = np.random.default_rng(0)
  x, valid = rng.normal(3, 2, (6, 2, 3, 4)).astype(np.float32), np.array([1, 0, 1, 1, 0, 0], bool)
  norm = BatchNorm()
  start = {'params': {'scale': jnp.full(4, 2.0), 'bias': jnp.ones(4)}}
  start['batch_stats'] = {'mean': jnp.full(4, 0.5), 'var': jnp.full(4, 3.0)}
  y, updated = normed(norm, start, x, valid)
  rows = x[valid].reshape(-1, 4)
  mean, var = rows.mean(0), rows.var(0)
  np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5) * 2 + 1, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(updated['batch_stats']['mean'], 0.9 * 0.5 + 0.1 * mean, rtol=1e-5)
  np.testing.assert_allclose(updated['batch_stats']['var'], 0.9 * 3 + 0.1 * rows.var(0, ddof=1), rtol=1e-5)
  everything, _ = normed(norm, start, x, np.ones(6, bool))
  np.testing.assert_allclose(everything, normed(norm, start, x, None)[0], atol=1e-5)
  _, kept = normed(norm, start, x, np.zeros(6, bool))
  jax.tree.map(np.testing.assert_array_equal, kept['batch_stats'], start['batch_stats'])


def test_statistics_of_all_devices_whose_numbers_of_rows_differ():
  rng = np.random.default_rng(1)
  x, valid = rng.normal(size=(2, 6, 4)).astype(np.float32), np.zeros((2, 6), bool)
  valid[0, [1, 4]] = valid[1, :5] = True
  start = {'params': {'scale': jnp.ones(4), 'bias': jnp.zeros(4)}}
  start['batch_stats'] = {'mean': jnp.zeros(4), 'var': jnp.ones(4)}
  norm = BatchNorm(axis_name='batch')
  each = jax.vmap(functools.partial(normed, norm), (None, 0, 0), axis_name='batch')
  y, updated = each(start, x, valid)
  expected, stats = normed(BatchNorm(), start, x.reshape(12, 4), valid.reshape(12))
  np.testing.assert_allclose(y.reshape(12, 4), expected, atol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-5), updated, stats)


# Standard deviations at MMDetection's sizes, measured there.
DEVIATIONS = {
  (BoxHead, (('convs', 4), ('fcs', 1))): {'conv0': 0.02948, 'fc0': 0.01214, 'cls': 0.00999, 'reg': 0.001},
  (BoxHead, (('convs', 0), ('fcs', 2))): {'fc0': 0.01214, 'fc1': 0.03126, 'cls': 0.01001, 'reg': 0.000999},
  (MaskHead, ()): {'conv3': 0.02947, 'upsample': 0.04416, 'logits': 0.1583},
}


PLAIN = (BoxHead, (('convs', 0), ('fcs', 2)))  # its layers start as the same ones of the other box head


@pytest.mark.parametrize(
  'kind, attributes',
  [pytest.param(*case, marks=pytest.mark.slow) if case == PLAIN else case for case in DEVIATIONS],
)
def test_initial_values(kind, attributes):
  x = jnp.zeros((1, 7, 7, 256))
  params = jax.jit(kind(80, **dict(attributes)).init)(jax.random.key(0), x)['params']
  for name, deviation in DEVIATIONS[kind, attributes].items():
    values = np.asarray(params[name]['kernel'])
    np.testing.assert_allclose(values.std(), deviation, rtol=0.03, err_msg=name)
    assert abs(values.mean()) < 5 * deviation / values.size**0.5, name
    assert (np.abs(values).max() < 1.75 * deviation) == name.startswith('fc'), name  # those are uniform
    assert not np.any(params[name].get('bias', 0))
