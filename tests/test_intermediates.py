"""What a caller adds to the intermediates of a network, or puts in their place; contexts of any classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from initial_values import initial_values, moved
from pixel_family import FourPixels

from ctx_flax.models.intermediates import Intermediates

MODEL = FourPixels(num_classes=6, contextual=True, embed_dim=8, class_counts=(3, 3, 2))
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((6, 32, 32, 3), np.float32) + 3 * RNG.standard_normal((6, 1, 1, 3), np.float32)


@pytest.fixture(scope='module')
def variables():
  return moved(initial_values(MODEL), 0.3)


def run(variables, replace=None):
  return jax.jit(MODEL.apply)(variables, IMAGES, replace=replace)[1]


def test_an_image_with_the_context_of_another(variables):
  own = run(variables)
  swapped = own['context3'][::-1]
  assert np.ptp(swapped, 0).any()
  out = run(variables, {'context3': swapped})
  np.testing.assert_array_equal(out['context3'], swapped)
  for name in ('scores1', 'scores2', 'considered3', 'context2'):
    np.testing.assert_array_equal(out[name], own[name])
  assert np.abs(out['scores3'] - own['scores3']).max() > 1e-3
  same = run(variables, {'context3': own['context3']})
  np.testing.assert_array_equal(same['scores4'], own['scores4'])


def test_contexts_of_sets_of_classes(variables):
  own = run(variables)
  tables = MODEL.class_tables(variables)
  for given in (variables, {**variables, **tables}):
    contexts = MODEL.contexts(given, own['considered3'], 3)
    np.testing.assert_allclose(contexts, own['context3'], atol=1e-6)
  all_classes = MODEL.contexts(variables, np.ones((6, 6), bool), 3)
  assert not np.ptp(all_classes, 0).any()
  assert np.abs(all_classes - own['context3']).max() > 1e-3


def test_replaced_first_and_then_added_to():
  """In the shapes of `out`, which are not those of the network in one of clips."""
  out = Intermediates({'x': jnp.ones((2, 3, 1))}, 3, {'x': jnp.full((2, 3, 1), 4), 'alive': jnp.zeros((2,))})
  value = out.record('x', jnp.zeros((6, 1)), of_frames=True)
  np.testing.assert_array_equal(value, np.full((6, 1), 5.0))
  assert value.dtype == jnp.float32 and out['x'].shape == (2, 3, 1)
  assert out.record('alive', jnp.ones((2,), bool)).dtype == bool
  assert set(out.finish()) == {'x', 'alive'}


def test_errors():
  out = Intermediates(replace={'context2': jnp.zeros((2, 3)), 'context9': jnp.zeros(1)})
  with pytest.raises(ValueError, match=r"replace\['context2'\] has shape \(2, 3\); expected \(2, 4\)"):
    out.record('context2', jnp.zeros((2, 4)))
  out.record('stage1', jnp.zeros(1))
  with pytest.raises(
    ValueError, match=r"replace names \['context9'\], which the model does not compute; it has \['stage1'\]"
  ):
    out.finish()
