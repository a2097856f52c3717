"""Images, boxes and masks as the reference transforms them, and together."""

import io

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from ctx_flax.data import coco, detection_draws, detection_transforms
from ctx_flax.data.decode import BadImage
from ctx_flax.data.detection_draws import DRAW

HW = (40, 60)
CANVAS = np.array([64, 96])


def draw_of(flip=False, first_hw=HW, crop=None, hw=HW):
  drawn = np.zeros(1, DRAW)
  drawn['index'], drawn['flip'], drawn['cropped'] = 7, flip, crop is not None
  drawn['first_hw'], drawn['crop'], drawn['hw'] = first_hw, crop or (0, 0, *HW), hw
  return drawn[0]


class Rectangles(coco.Objects):
  """Objects whose masks fill their boxes, in memory; `taken` are those that were asked for."""

  def masks(self, rows):
    self.taken.extend(rows.tolist())
    y, x = np.mgrid[: self.hw[0], : self.hw[1]]
    return (
      np.stack([(x >= x1) & (x < x2) & (y >= y1) & (y < y2) for x1, y1, x2, y2 in self.boxes[rows]]).astype(
        np.uint8
      )
      if len(rows)
      else np.zeros((0, *self.hw), np.uint8)
    )


def element_of(boxes, hw=HW, pixels=None):
  rng = np.random.default_rng(0)
  if pixels is None:
    pixels = cv2.resize(rng.integers(0, 256, (5, 8, 3), np.uint8), hw[::-1])
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'PNG')
  boxes = np.float32(boxes).reshape(-1, 4)
  objects = Rectangles(boxes, np.arange(len(boxes), dtype=np.int32), hw, ('', 0), np.zeros((len(boxes), 2)))
  object.__setattr__(objects, 'taken', [])
  return {'encoded': file.getvalue(), 'objects': objects}


@pytest.mark.parametrize('name', ['up', 'down', 'long'])
def test_pixels_and_masks_are_those_of_the_reference(golden, name):
  """Bilinear without antialiasing, and the nearest neighbour of corners, not of middles."""
  values = golden('coco/pipeline')
  long, short = values[f'scale_{name}'].max(), values[f'scale_{name}'].min()
  hw = detection_draws.resized_hw(np.array(values['mask'].shape), short, long)
  drawn = draw_of(first_hw=values['mask'].shape, hw=hw)
  for kind, interpolation in (('image', 'bilinear'), ('mask', 'nearest')):
    result = detection_transforms.transform_pixels(values[kind], drawn, interpolation)
    np.testing.assert_array_equal(result, values[f'{kind}_{name}'])


def test_nearest_by_hand():
  mask = np.arange(5, dtype=np.uint8)[None] * np.ones((2, 1), np.uint8)
  drawn = draw_of(hw=(1, 3))
  np.testing.assert_array_equal(detection_transforms.transform_pixels(mask, drawn, 'nearest'), [[0, 1, 3]])


def test_pixels_are_flipped_resized_cropped_and_resized():
  pixels = np.random.default_rng(0).integers(0, 256, (*HW, 3), np.uint8)
  drawn = draw_of(True, (30, 45), (4, 6, 20, 33), (25, 41))
  expected = cv2.resize(pixels[:, ::-1], (45, 30))[4:24, 6:39]
  expected = cv2.resize(np.ascontiguousarray(expected), (41, 25))
  np.testing.assert_array_equal(detection_transforms.transform_pixels(pixels, drawn, 'bilinear'), expected)


def reference_boxes(boxes, hw, drawn):
  """One box after the other, in the words of the reference."""
  h, w = hw
  result, kept = [], []
  for number, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
    if drawn['flip']:
      x1, x2 = w - x2, w - x1
    if drawn['cropped']:
      first_h, first_w = drawn['first_hw'].tolist()
      x1, x2 = (min(max(x * (first_w / w), 0), first_w) for x in (x1, x2))
      y1, y2 = (min(max(y * (first_h / h), 0), first_h) for y in (y1, y2))
      top, left, crop_h, crop_w = drawn['crop'].tolist()
      x1, x2 = (min(max(x - left, 0), crop_w) for x in (x1, x2))
      y1, y2 = (min(max(y - top, 0), crop_h) for y in (y1, y2))
      if x2 <= x1 or y2 <= y1:
        continue
      now_h, now_w = crop_h, crop_w
    else:
      now_h, now_w = h, w
    new_h, new_w = drawn['hw'].tolist()
    x1, x2 = (min(max(x * (new_w / now_w), 0), new_w) for x in (x1, x2))
    y1, y2 = (min(max(y * (new_h / now_h), 0), new_h) for y in (y1, y2))
    result.append((x1, y1, x2, y2))
    kept.append(number)
  return np.array(result).reshape(-1, 4), kept


def test_boxes_are_those_of_the_reference():
  rng = np.random.default_rng(0)
  augmentation = detection_draws.Augmentation(0.5, (32, 48), 96, 0.5, (40, 56), (24, 40))
  dropped = 0
  for drawn in augmentation.draw(rng, np.tile(HW, (60, 1))):
    corners = rng.uniform(-10, 70, (9, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=-1)
    result, kept = detection_transforms.transform_boxes(boxes, HW, drawn)
    expected, expected_kept = reference_boxes(boxes, HW, drawn)
    assert kept.tolist() == expected_kept and result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-4)
    dropped += 9 - len(kept)
    h, w = drawn['hw']
    assert (result >= 0).all() and (result <= (w, h, w, h)).all()
  assert dropped > 20


def test_boxes_by_hand():
  boxes = np.float32([(10, 5, 20, 15), (-4, 0, 70, 50), (30, 30, 40, 40)])
  flipped, kept = detection_transforms.transform_boxes(boxes, HW, draw_of(True, hw=(80, 90)))
  expected = np.float32([(60, 10, 75, 30), (0, 0, 90, 80), (30, 60, 45, 80)])
  np.testing.assert_array_equal(flipped, expected, strict=True)
  assert kept.tolist() == [0, 1, 2]
  cropped, kept = detection_transforms.transform_boxes(boxes, HW, draw_of(crop=(4, 20, 10, 10), hw=(20, 30)))
  # The first ends where the crop begins.
  np.testing.assert_array_equal(cropped, np.float32([(0, 0, 30, 20)]), strict=True)
  assert kept.tolist() == [1]


def test_a_row_holds_image_boxes_and_masks_of_one_place():
  boxes = [(10, 8, 30, 24), (30, 0, 60, 40), (0, 30, 20, 40)]
  element = element_of(boxes)
  row = detection_transforms.train_row(element, draw_of(True, hw=(60, 90)), CANVAS, 5)
  types = {name: (value.dtype.name, value.shape) for name, value in row.items()}
  assert types == {
    'image': ('uint8', (64, 96, 3)),
    'image_hw': ('int32', (2,)),
    'original_hw': ('int32', (2,)),
    'scale': ('float32', (2,)),
    'index': ('int32', ()),
    'boxes': ('float32', (5, 4)),
    'labels': ('int32', (5,)),
    'masks': ('uint8', (5, 64, 12)),
  }
  assert row['image'][:60, :90].any() and not row['image'][60:].any() and not row['image'][:, 90:].any()
  assert (row['image_hw'].tolist(), row['original_hw'].tolist()) == ([60, 90], [40, 60])
  assert row['scale'].tolist() == [1.5, 1.5] and row['index'] == 7
  assert row['labels'].tolist() == [0, 1, 2, -1, -1] and not row['boxes'][3:].any()
  masks = np.unpackbits(row['masks'], axis=-1).astype(bool)
  assert not masks[3:].any()
  for (x1, y1, x2, y2), mask in zip(row['boxes'][:3], masks[:3], strict=True):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    np.testing.assert_allclose([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], [x1, y1, x2, y2], atol=1)
    assert mask.sum() == (rows[-1] + 1 - rows[0]) * (columns[-1] + 1 - columns[0])


def test_a_crop_moves_masks_with_boxes_and_loses_what_is_outside():
  boxes = [(2, 2, 8, 8), (20, 10, 40, 30), (16, 20, 24, 36)]
  element = element_of(boxes)
  row = detection_transforms.train_row(element, draw_of(crop=(10, 20, 20, 30), hw=(40, 60)), CANVAS, 5)
  assert row['labels'].tolist() == [1, 2, -1, -1, -1] and element['objects'].taken == [1, 2]
  np.testing.assert_array_equal(row['boxes'][:2], [(0, 0, 40, 40), (0, 20, 8, 40)])
  masks = np.unpackbits(row['masks'], axis=-1)
  for (x1, y1, x2, y2), mask in zip(row['boxes'][:2].astype(int), masks, strict=False):
    assert mask.sum() == (x2 - x1) * (y2 - y1) == mask[y1:y2, x1:x2].sum()
  assert row['scale'].tolist() == [2, 2] and row['original_hw'].tolist() == [40, 60]


def test_objects_beyond_the_limit_are_left_out_and_none_is_legal():
  boxes = [(2 * i, 2, 2 * i + 8, 8) for i in range(9)]
  element = element_of(boxes)
  row = detection_transforms.train_row(element, draw_of(), CANVAS, 4)
  assert row['labels'].tolist() == [0, 1, 2, 3] and element['objects'].taken == [0, 1, 2, 3]
  for boxes, crop in (([], None), ([(0, 0, 5, 5)], (20, 20, 20, 20))):
    row = detection_transforms.train_row(element_of(boxes), draw_of(crop=crop), CANVAS, 4)
    assert (row['labels'] == -1).all() and not row['masks'].any() and not row['boxes'].any()


def test_masks_of_any_width_are_packed_within_the_canvas():
  for width in (57, 58, 63, 64, 65, 96):
    row = detection_transforms.train_row(element_of([(0, 0, 60, 40)]), draw_of(hw=(40, width)), CANVAS, 1)
    (mask,) = np.unpackbits(row['masks'], axis=-1)
    assert mask[:40, :width].all() and mask.sum() == 40 * width


def test_test_rows_have_the_whole_image_and_no_objects():
  row = detection_transforms.eval_row(element_of([(0, 0, 9, 9)]), 3, np.array([50, 75]), CANVAS)
  assert row.keys() == {'image', 'image_hw', 'original_hw', 'scale', 'index'}
  assert row['scale'].tolist() == [1.25, 1.25] and row['index'] == 3 and row['image_hw'].tolist() == [50, 75]
  image = detection_transforms.read_image(element_of([]))
  np.testing.assert_array_equal(row['image'][:50, :75], cv2.resize(image, (75, 50)))
  blank = detection_transforms.blank_row(CANVAS)
  assert {name: (x.dtype, x.shape) for name, x in blank.items()} == {
    name: (x.dtype, x.shape) for name, x in row.items()
  }
  assert not blank['image'].any() and blank['index'] == -1 and blank['image_hw'].min() > 0


@pytest.mark.parametrize('orientation', range(1, 9))
def test_photographs_are_turned_as_opencv_turns_them(orientation):
  pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8), (48, 32))
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'JPEG', quality=95, exif=exif)
  theirs = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
  element = element_of([], theirs.shape[:2]) | {'encoded': file.getvalue()}
  # Each has a JPEG library of its own.
  np.testing.assert_allclose(detection_transforms.read_image(element).astype(int), theirs, atol=3)


def test_gray_images_have_three_channels():
  pixels = np.arange(40 * 60, dtype=np.uint32).reshape(HW) // 10
  image = detection_transforms.read_image(element_of([], pixels=pixels.astype(np.uint8)))
  np.testing.assert_array_equal(image, np.repeat(pixels[..., None], 3, axis=-1))


def test_an_image_of_another_size_than_listed_cannot_be_read():
  element = element_of([], pixels=np.zeros((41, 60, 3), np.uint8))
  with pytest.raises(BadImage, match=r'^60 x 41 pixels, but the annotation file says 60 x 40$'):
    detection_transforms.read_image(element)
