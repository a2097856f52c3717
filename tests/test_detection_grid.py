"""The picture of a batch with its objects: each image as `draw_objects` has it, and where it ends."""

import numpy as np
import pytest
from coco_files import detection_config, opened, train, write_many
from PIL import Image

from ctx_flax.data import detection_grid
from ctx_flax.data.detection_grid import GAP, draw_canvas
from ctx_flax.data.object_drawing import draw_objects

NOTHING = np.zeros((0, 4)), np.zeros(0, int), None


def test_an_image_is_enlarged_and_its_edge_is_framed():
  """Twice as large, with its object there, and a gray line below, where the padding begins."""
  image = np.full((100, 128, 3), 40, np.uint8)
  masks = np.zeros((1, 100, 128), bool)
  masks[0, 20:40, 50:80] = True
  shown = np.array([(50, 20, 80, 40.0)]), np.array([1]), masks, ('cat', 'dog')
  drawn = draw_canvas(image, (90, 128), *shown)
  expected = draw_objects(image, *shown[:2], shown[3], masks=masks, scale=2)
  assert drawn.shape == (200, 256, 3) and (expected != 40).any()
  np.testing.assert_array_equal(np.delete(drawn, 180, axis=0), np.delete(expected, 180, axis=0))
  assert (drawn[180] == 128).all()
  np.testing.assert_array_equal(draw_canvas(image, (100, 128), *shown), expected)


@pytest.mark.parametrize(
  'hw, size', [((64, 96), (171, 256)), ((800, 1344), (305, 512)), ((300, 300), (300, 300))]
)
def test_pictures_are_neither_tiny_nor_huge(hw, size):
  assert draw_canvas(np.zeros((*hw, 3), np.uint8), hw, *NOTHING, ()).shape == (*size, 3)


def test_a_batch_is_drawn(tmp_path):
  config = detection_config()
  config.data.path = str(write_many(tmp_path))
  source = opened(config)
  (batch,) = train(source, config, 1)
  path = tmp_path / 'augmented.png'
  for most, columns, rows in ((16, 2, 2), (2, 2, 1), (1, 1, 1)):
    detection_grid.save_detection_grid(batch, path, source.class_names, most)
    pixels = np.asarray(Image.open(path))
    h, w = (round(256 / max(batch['image'].shape[1:3]) * side) for side in batch['image'].shape[1:3])
    assert pixels.shape == (rows * (h + GAP) + GAP, columns * (w + GAP) + GAP, 3)
  there = batch['labels'][0] >= 0
  masks = np.unpackbits(batch['masks'][0][there], axis=-1).astype(bool)
  objects = batch['boxes'][0][there], batch['labels'][0][there], masks
  first = draw_canvas(batch['image'][0], batch['image_hw'][0], *objects, source.class_names)
  np.testing.assert_array_equal(pixels[GAP : GAP + h, GAP : GAP + w], first)


def test_a_batch_without_objects_is_drawn(tmp_path):
  config = detection_config()
  config.data.path = str(write_many(tmp_path))
  (batch,) = train(opened(config), config, 1)
  detection_grid.save_detection_grid(batch | {'labels': np.full((4, 5), -1)}, tmp_path / 'a.png', ())
