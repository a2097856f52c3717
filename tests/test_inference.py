"""Inference a few images at a time, and with tables of the classes: the same numbers, computed less often."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from initial_values import initial_values, moved
from networks import slow_unless

from ctx_flax.models import create_model, inference
from ctx_flax.models.inference import apply_in_turn


@functools.cache
def network(name, **keywords):
  """A mini network with random parameters, its variables and six images."""
  keywords |= {'num_classes': 10, 'depths': (1, 1, 1, 1)} | (
    {'embed_dim': 32} if name.startswith('ctx') else {}
  )
  model = create_model(name, **keywords)
  images = np.random.default_rng(1).standard_normal((6, 32, 32, 3), np.float32)
  return model, moved(initial_values(model), 0.05), images


@pytest.mark.parametrize('name', slow_unless(['convnext_mini', 'ctx_convnext_mini'], 'convnext_mini'))
def test_images_in_turn_give_what_all_give(name):
  model, variables, images = network(name)
  expected = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
  found = jax.jit(lambda v, x: apply_in_turn(model, v, x, at_once=2))(variables, images)
  chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('pixels', 'at_once'), [(1, 1), (2 * 32 * 32, 2), (5 * 32 * 32, 3), (10**6, 6)])
def test_as_many_at_once_as_fit_into_the_cache(monkeypatch, pixels, at_once):
  """A divisor of the batch; elsewhere than on a CPU all of them."""
  monkeypatch.setattr(inference, 'CACHE_PIXELS', pixels)
  seen = []

  class Recording:
    def class_tables(self, variables):
      return {}

    def apply(self, variables, images, *, train):
      assert not train
      seen.append(images.shape[0])
      return images[:, 0, 0], {'stage1': images}

  images = jnp.arange(6 * 32 * 32 * 3, dtype=jnp.float32).reshape(6, 32, 32, 3)
  logits, out = apply_in_turn(Recording(), {}, images)
  np.testing.assert_array_equal(logits, images[:, 0, 0])
  np.testing.assert_array_equal(out['stage1'], images)
  assert set(seen) == {at_once}
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  seen.clear()
  apply_in_turn(Recording(), {}, images)
  assert seen == [6]


def test_a_number_that_does_not_divide_the_batch_is_refused():
  model, variables, images = network('convnext_mini')
  for at_once in (0, 4, 7):
    with pytest.raises(ValueError, match=f'at_once is {at_once}: it must divide the 6 images'):
      apply_in_turn(model, variables, images, at_once)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ctx_convnext_mini', 'ctx_resnet_mini'])
def test_tables_of_the_classes_replace_their_computation(name):
  model, variables, images = network(name)
  tables = model.class_tables(variables)
  shapes = jax.tree.map(jnp.shape, tables['class_tables']['contextualizer'])
  assert shapes == {'classes': (10, 32), 'context2': (10, 128), 'context3': (10, 128), 'context4': (10, 128)}
  apply = jax.jit(lambda v, x: model.apply(v, x, train=False))
  expected = apply(variables, images)
  chex.assert_trees_all_close(apply({**variables, **tables}, images), expected, rtol=1e-5, atol=1e-5)
  # They are used: without the embeddings, and with other tables.
  params = {**variables['params'], 'contextualizer': dict(variables['params']['contextualizer'])}
  params['contextualizer']['class_embedding'] = jnp.zeros((10, 32))
  chex.assert_trees_all_close(
    apply({**variables, 'params': params, **tables}, images), expected, rtol=1e-5, atol=1e-5
  )
  halved = jax.tree.map(lambda table: table / 2, tables)
  for used in (apply, lambda variables, images: apply_in_turn(model, variables, images, at_once=3)):
    logits, _ = used({**variables, **halved}, images)
    assert not np.allclose(logits, expected[0], rtol=1e-2)


def test_a_plain_network_has_no_tables():
  model, variables, _ = network('convnext_mini')
  assert model.class_tables(variables) == {}
