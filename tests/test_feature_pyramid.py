"""The feature pyramid: MMDetection's values, odd sizes by hand, padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_detectors import part_variables

from ctx_flax.layers.feature_pyramid import FeaturePyramid, enlarge


def test_the_values_of_mmdetection(golden):
  """Of maps whose sizes do not double: rows and columns of the coarser one are chosen by floor."""
  arrays = golden('coco/fpn')
  maps = [jnp.asarray(arrays[f'in{i}']) for i in range(4)]
  layer = FeaturePyramid(16)
  variables = part_variables(layer, arrays, 'neck', 'neck.', maps)
  for i, x in enumerate(jax.jit(layer.apply)(variables, maps)):
    np.testing.assert_allclose(x, arrays[f'out{i}'], rtol=0, atol=1e-5, err_msg=str(i))


@pytest.mark.parametrize(
  'old, new, rows',
  [(3, 6, [0, 0, 1, 1, 2, 2]), (2, 5, [0, 0, 0, 1, 1]), (3, 4, [0, 0, 1, 2]), (3, 3, [0, 1, 2])],
)
def test_the_nearest_pixels_by_hand(old, new, rows):
  x = jnp.arange(old, dtype=jnp.float32).reshape(1, old, 1, 1)
  np.testing.assert_array_equal(enlarge(x, new, 1)[0, :, 0, 0], rows)
  np.testing.assert_array_equal(enlarge(x.reshape(1, 1, old, 1), 1, new)[0, 0, :, 0], rows)


def test_every_other_pixel_is_the_coarsest_map():
  layer, maps = FeaturePyramid(4), [jnp.ones((1, 6, 10, 3)), jnp.ones((1, 3, 5, 3))]
  pyramid = jax.jit(lambda key: layer.init_with_output(key, maps)[0])(jax.random.key(0))
  assert [x.shape for x in pyramid] == [(1, 6, 10, 4), (1, 3, 5, 4), (1, 2, 3, 4)]
  np.testing.assert_array_equal(pyramid[2], pyramid[1][:, ::2, ::2])
