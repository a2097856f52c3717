"""Objects drawn on their image: the right pixels of masks and boxes, captions that can be read."""

import itertools

import numpy as np
import pytest
from PIL import ImageDraw

from ctx_flax.data import object_drawing
from ctx_flax.data.object_drawing import class_colour, draw_objects

NAMES = ('cat', 'dog')
GRAY = np.full((60, 80, 3), 100, np.uint8)
OFF = np.zeros((1, 60, 80), bool)


def changed(drawn, before=GRAY):
  return (drawn != before).any(-1)


@pytest.fixture
def captions(monkeypatch):
  """Collects [(text, (x, y), colour)] instead of drawing them."""
  written = []
  monkeypatch.setattr(
    ImageDraw.ImageDraw, 'text', lambda self, xy, text, fill, font: written.append((text, xy, fill))
  )
  return written


def test_the_frame_of_a_box():
  """Of the pixels 20..49 by 30..54, two wide, and a caption above."""
  drawn = draw_objects(GRAY, np.array([[20, 30, 50, 55]]), np.array([1]), NAMES)
  frame = np.zeros((60, 80), bool)
  frame[30:55, 20:50] = True
  frame[32:53, 22:48] = False
  np.testing.assert_array_equal(changed(drawn)[30:], frame[30:])
  assert (drawn[frame] == class_colour(1)).all()
  caption = changed(drawn)[:30]
  assert caption[16:, 20:40].any() and not caption[:16].any() and not caption[:, :20].any()


def test_a_mask_is_tinted_and_outlined():
  mask = OFF.copy()
  mask[0, 20:30, 40:60] = True
  drawn = draw_objects(GRAY, np.array([[0, 0, 1, 1]]), np.array([0]), NAMES, masks=mask)
  colour = np.array(class_colour(0))
  assert (drawn[20, 40:60] == colour).all() and (drawn[20:30, 59] == colour).all()
  inner = drawn[21:29, 41:59]
  np.testing.assert_allclose(inner, np.broadcast_to(0.55 * 100 + 0.45 * colour, inner.shape), atol=0.51)
  assert not changed(drawn)[20:30, :40].any() and not changed(drawn)[30:].any()
  assert (GRAY == 100).all()  # the image itself stays


def test_enlarged_and_reduced():
  pixels, mask = GRAY.copy(), OFF.copy()
  pixels[50, 60], mask[0, 40, 50] = 0, True
  large, small = (
    draw_objects(pixels, np.array([[10, 20, 20, 26]]), np.array([0]), NAMES, masks=mask, scale=scale)
    for scale in (3, 0.5)
  )
  assert large.shape == (180, 240, 3) and small.shape == (30, 40, 3)
  assert changed(large, 100)[120:123, 150:153].all() and (large[150:153, 180:183] == 0).all()
  assert changed(large, 100)[100:].sum() == 18
  assert (large[77, 30:60] == class_colour(0)).all() and (small[12, 5:10] == class_colour(0)).all()
  assert (small[25, 30] == 75).all()


def test_the_best_lies_on_top():
  boxes, labels = np.array([[10, 20, 60, 55]] * 2), np.array([0, 1])
  first, second = (
    draw_objects(GRAY, boxes, labels, NAMES, scores=np.array(s)) for s in ((0.9, 0.1), (0.1, 0.9))
  )
  assert (first[54, 10:60] == class_colour(0)).all() and (second[54, 10:60] == class_colour(1)).all()
  assert (draw_objects(GRAY, boxes, labels, NAMES)[54, 10:60] == class_colour(0)).all()


def test_captions_say_class_and_score(captions):
  boxes = np.array([[5, 20, 20, 30], [5, 40, 20, 50]])
  draw_objects(GRAY, boxes, np.array([0, 1]), NAMES, scores=np.array([0.304, 0.997]))
  assert [text for text, _, _ in captions] == ['dog 100 %', 'cat 30 %']
  draw_objects(GRAY, boxes[:1], np.array([1]), ('', 'two\nlines'))
  assert captions[2][0] == r'two\nlines'


def test_captions_stay_in_the_image_and_apart():
  """Where there is room for that."""
  boxes = [(20, 0, 60, 30), (20, 0, 60, 30), (70, 50, 80, 60), (-9, -9, -2, 3), (200, 300, 210, 310)]
  taken = []
  for box in boxes:
    x1, y1, x2, y2 = place = object_drawing._caption_place(16.0, box, (80, 60), taken)
    assert 0 <= x1 < x2 < 80 and 0 <= y1 < y2 < 60
    taken.append(place)
  assert not any(object_drawing._touch(a, b) for a, b in itertools.combinations(taken[:4], 2))
  assert taken[4] == (60, 46, 79, 59)  # a corner in which there is none


def test_captions_are_light_on_dark_colours(captions):
  for label in range(40):
    draw_objects(GRAY, np.array([[5, 20, 20, 30]]), np.array([label]), [''] * 40)
  fills = {label: fill for label, (_, _, fill) in enumerate(captions)}
  assert set(fills.values()) == {'white', 'black'}
  light = [np.dot(class_colour(label), object_drawing.LUMINANCE) for label in range(40)]
  assert max(v for n, v in enumerate(light) if fills[n] == 'white') < min(
    v for n, v in enumerate(light) if fills[n] == 'black'
  )


def test_classes_have_colours_of_their_own():
  colours = np.array([class_colour(label) for label in range(80)], np.int64)
  distances = np.abs(colours[:, None] - colours[None]).sum(-1) + 999 * np.eye(80, dtype=int)
  assert distances[:20, :20].min() > 30 and distances.min() > 10


def test_what_lies_outside_is_cut_off():
  drawn = draw_objects(GRAY, np.array([[-20, 30, 300, 55.4], [90, 70, 95, 75]]), np.array([0, 1]), NAMES)
  assert changed(drawn)[54].all() and not changed(drawn)[56:, :40].any()


def test_an_image_without_objects():
  np.testing.assert_array_equal(draw_objects(GRAY, np.zeros((0, 4)), np.zeros(0, int), NAMES), GRAY)
