"""Predicted masks on their images: pixels as in the reference, nothing for empty boxes, exact codes."""

import numpy as np
import pytest

from ctx_flax.data import coco_masks
from ctx_flax.tasks.detection.paste import encode_mask, paste_mask


def slow_mask(mask, box, hw):
  """Pixel by pixel: the bilinear value at each centre, zero beyond the mask's outermost pixels."""
  mask, (x1, y1, x2, y2) = mask.astype(np.float64), box
  size = len(mask)
  pasted = np.zeros(hw, bool)
  for y in range(hw[0]):
    for x in range(hw[1]):
      v = (y + 0.5 - y1) / (y2 - y1) * size - 0.5
      u = (x + 0.5 - x1) / (x2 - x1) * size - 0.5
      value = 0.0
      for i in (int(np.floor(v)), int(np.floor(v)) + 1):
        for j in (int(np.floor(u)), int(np.floor(u)) + 1):
          if 0 <= i < size and 0 <= j < size:
            value += (1 - abs(v - i)) * (1 - abs(u - j)) * mask[i, j]
      pasted[y, x] = value >= 0.5
  return pasted


@pytest.mark.parametrize(
  'box',
  [
    (3, 2, 17, 13),
    (3.3, 2.6, 17.1, 12.2),
    (-6.5, -4, 9, 30),  # beyond the image on three sides
    (0, 0, 24, 18),  # all of it
    (7.2, 5.1, 8.1, 5.9),  # about a pixel
    (7.6, 5.6, 7.9, 15.0),  # between the centres of two columns
    (30, 3, 40, 9),  # beside it
  ],
)
def test_pixels_are_those_of_a_slow_reference(box):
  rng = np.random.default_rng(0)
  mask = rng.random((28, 28))
  np.testing.assert_array_equal(paste_mask(mask, np.array(box), (18, 24)), slow_mask(mask, box, (18, 24)))


def test_a_full_mask_sets_the_pixels_whose_centres_lie_in_the_box():
  """Also those on the border, where the value is half of 1: 0.5 counts."""
  expected = np.zeros((4, 6), bool)
  expected[1:3, 1:4] = True
  np.testing.assert_array_equal(paste_mask(np.ones((28, 28)), np.array([1.5, 1, 4, 2.6]), (4, 6)), expected)


@pytest.mark.parametrize('box', [(5, 2, 5, 9), (2, 5, 9, 5), (9, 2, 5, 9), (np.nan, 2, 5, 9), (4, 4, 4, 4)])
def test_a_box_without_area_has_no_mask(box):
  assert not paste_mask(np.ones((28, 28)), np.array(box, np.float32), (12, 12)).any()


def test_masks_of_another_size_and_threshold():
  mask = np.array([[0.2, 0.8]])
  pasted = paste_mask(mask, np.array([0, 0, 8, 4]), (4, 8), threshold=0.5)
  assert not pasted[:, :4].any() and pasted[1:3, 4:7].all()
  assert paste_mask(mask, np.array([0, 0, 8, 4]), (4, 8), threshold=0.1)[1:3, 1:7].all()


def test_codes_are_of_the_same_pixels():
  for shape in ((7, 5), (1, 9), (9, 1)):
    for pixels in (np.random.default_rng(0).random(shape) > 0.4, np.zeros(shape, bool), np.ones(shape, bool)):
      code = encode_mask(pixels)
      assert code['size'] == list(shape) and isinstance(code['counts'], str)
      np.testing.assert_array_equal(coco_masks.decode(code, shape), pixels)


def test_pasted_masks_of_the_reference(golden):
  """MMDetection's pixels, areas and pycocotools' codes; a box without width is ours, and empty."""
  values = golden('coco/paste')
  hw = values['image_hw'].tolist()
  expected = np.unpackbits(values['binary'], axis=-1)[..., : hw[1]].astype(bool)
  for n, (mask, box) in enumerate(zip(values['masks'], values['boxes'], strict=True)):
    pasted = paste_mask(mask, box, hw)
    if box[2] == box[0]:
      assert not pasted.any() and expected[n].any()
      continue
    np.testing.assert_array_equal(pasted, expected[n])
    assert encode_mask(pasted)['counts'] == values['rle'][n]
    assert pasted.sum() == values['area'][n]


@pytest.mark.parametrize('name', ['mask_rcnn_tiny', 'cascade_rcnn_tiny'])
def test_pasted_masks_of_whole_models(golden, name):
  values = golden(f'coco/{name}')
  pasted = 0
  for image, hw in enumerate(values['ori_hw'].tolist()):
    expected = np.unpackbits(values[f'eval.masks{image}'], axis=-1)[..., : hw[1]].astype(bool)
    boxes = values[f'eval.dets{image}'][:, :4]
    for n in np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(-1)):
      mask = paste_mask(values[f'eval.mask_prob{image}'][n], boxes[n], hw)
      np.testing.assert_array_equal(mask, expected[n])
      pasted += 1
  assert pasted > 100
