"""The picture of a batch with its objects: boxes, masks and names where they belong."""

import numpy as np
import pytest
from coco_files import detection_config, opened, train, write_many
from PIL import Image

from ctx_flax.data import detection_grid
from ctx_flax.data.detection_grid import COLOURS, GAP, draw_objects


def test_boxes_masks_and_the_edge_of_the_image():
  """Twice as large as the image; a mask is shaded, a box outlined, the rest as it was."""
  image = np.full((100, 128, 3), 40, np.uint8)
  masks = np.zeros((1, 100, 128), bool)
  masks[0, 20:40, 50:80] = True
  picture = draw_objects(image, np.array([(50, 20, 80, 40.0)]), [''], masks, (90, 128))
  pixels = np.asarray(picture).astype(int)
  assert picture.size == (256, 200)
  assert (pixels[70:170, 10:90] == 40).all()
  shaded = 40 + detection_grid.SHADE * (np.array(COLOURS[0]) - 40)
  np.testing.assert_allclose(pixels[44:76, 104:156], np.broadcast_to(shaded, (32, 52, 3)), atol=1)
  for edge in (pixels[40, 100:159], pixels[79, 100:159], pixels[40:79, 100], pixels[40:79, 159]):
    assert (edge == COLOURS[0]).all()
  assert (pixels[180, :255] == 128).all()


def test_captions_stand_above_their_boxes():
  image = np.zeros((256, 256, 3), np.uint8)
  plain = np.asarray(draw_objects(image, np.array([(50, 60, 90, 80.0)]), ['']))
  named = np.asarray(draw_objects(image, np.array([(50, 60, 90, 80.0)]), ['cat\n']))
  rows, columns = np.nonzero((plain != named).any(axis=-1))
  assert rows.min() >= 45 and rows.max() <= 61 and columns.min() >= 49 and columns.max() < 90


@pytest.mark.parametrize(
  'hw, size', [((64, 96), (256, 171)), ((800, 1344), (512, 305)), ((300, 300), (300, 300))]
)
def test_pictures_are_neither_tiny_nor_huge(hw, size):
  assert draw_objects(np.zeros((*hw, 3), np.uint8), np.zeros((0, 4)), []).size == size


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
  names = [source.class_names[label] for label in batch['labels'][0][there]]
  first = draw_objects(batch['image'][0], batch['boxes'][0][there], names, masks, batch['image_hw'][0])
  np.testing.assert_array_equal(pixels[GAP : GAP + h, GAP : GAP + w], np.asarray(first))


def test_a_batch_without_objects_is_drawn(tmp_path):
  config = detection_config()
  config.data.path = str(write_many(tmp_path))
  (batch,) = train(opened(config), config, 1)
  detection_grid.save_detection_grid(batch | {'labels': np.full((4, 5), -1)}, tmp_path / 'a.png', ())
