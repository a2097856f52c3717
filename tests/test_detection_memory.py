"""The memory of the operations of detectors, by the compiler's count; as test_ops_memory.py.

RoIAlign at the size of COCO, 512 boxes on the two finest maps of an image of 800 x 1344, which have nine
tenths of its cells.
"""

import functools
import math

import jax
import jax.numpy as jnp
import pytest
from program_memory import compiled_temp, sizes

from ctx_flax.ops import mask_targets, nms, pyramid_roi_align

MB = 1e6
FLOAT = 4  # bytes
N, BINS, C = 512, 7, 256
MAPS = [jax.ShapeDtypeStruct((h, w, C), jnp.float32) for h, w in ((200, 336), (100, 168))]
BOXES = jax.ShapeDtypeStruct((N, 4), jnp.float32)
DOUT = jax.ShapeDtypeStruct((N, BINS, BINS, C), jnp.float32)
OUTPUT = N * BINS * BINS * C * FLOAT  # 26 MB


def forward(path):
  return functools.partial(pyramid_roi_align, strides=(4, 8), size=BINS, path=path)


def gradient(path):
  return lambda maps, boxes, dout: jax.vjp(lambda maps: forward(path)(maps, boxes), maps)[1](dout)


def test_windows_need_their_output_once_more():
  """In the order of the levels, before that of the boxes."""
  assert compiled_temp(forward('windows'), (MAPS, BOXES)) < OUTPUT + 2 * MB


def test_gradients_of_windows_need_the_cotangent_once_more():
  assert compiled_temp(gradient('windows'), (MAPS, BOXES, DOUT)) < OUTPUT + 4 * MB


@pytest.mark.parametrize('path', ['windows', 'separable'])
def test_no_intermediate_is_larger_than_a_map(path):
  """In the program itself; bands of all boxes would be 18 times as large. Images come one after the other."""
  program = jax.make_jaxpr(gradient(path))(MAPS, BOXES, DOUT)
  assert max(sizes(program.jaxpr)) == math.prod(MAPS[0].shape)
  images = jax.tree.map(lambda a: jax.ShapeDtypeStruct((3, *a.shape), a.dtype), (MAPS, BOXES))
  program = jax.make_jaxpr(jax.vmap(forward(path)))(*images)
  assert max(sizes(program.jaxpr)) == math.prod(DOUT.shape) * 3


def test_nms_keeps_no_table_of_all_pairs():
  boxes, scores = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2000, 4), (2000,)))
  function = functools.partial(nms, threshold=0.7, limit=1000)
  assert compiled_temp(function, (boxes, scores)) < 0.5 * MB < 2000**2


@pytest.mark.parametrize(
  'path, bound',
  # 8 masks of 4.3 MB in float32, and as much as bits before they are numbers.
  [('windows', 0.5 * MB), ('separable', 2.2 * 8 * 800 * 1344 * FLOAT)],
)
def test_masks_are_unpacked_a_few_at_a_time(path, bound):
  masks, boxes, rows = (
    jax.ShapeDtypeStruct(shape, dtype)
    for shape, dtype in (((100, 800, 168), jnp.uint8), ((128, 4), jnp.float32), ((128,), jnp.int32))
  )
  assert compiled_temp(functools.partial(mask_targets, path=path), (masks, boxes, rows)) < bound
