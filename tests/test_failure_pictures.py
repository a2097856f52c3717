"""Pictures of what a detector gets wrong: the right part of the right image, and objects where they are."""

import io

import numpy as np
import pytest
from detected_sets import HW, Source, by_hand
from PIL import Image

from ctx_flax.analysis import failure_pictures
from ctx_flax.data.coco import Objects
from ctx_flax.data.object_drawing import class_colour
from ctx_flax.tasks.detection import pictures


class Grays(Source):
  """Images of one gray each; the last cannot be read."""

  def __getitem__(self, index):
    if index == 2:
      raise OSError('lost')
    stream = io.BytesIO()
    Image.fromarray(np.full((*HW, 3), 60 + 60 * index, np.uint8)).save(stream, 'PNG')
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
    return {'encoded': stream.getvalue(), 'objects': Objects(*nothing, HW, ('', 0), np.zeros((0, 2), int))}


@pytest.fixture
def captions(monkeypatch):
  """Collects what `draw_objects` is told to write, and where."""
  told = []
  original = failure_pictures.detection_figures.draw_objects
  monkeypatch.setattr(
    failure_pictures.detection_figures,
    'draw_objects',
    lambda *args, **keywords: told.append(args) or original(*args, **keywords),
  )
  return told


def record(found, kind, number):
  return found.results[number] if kind == 'result' else found.ground_truth.annotations[number]


def test_a_detection_and_the_object_near_it(captions):
  """Of the second cat: 40 x 40 pixels at (60, 10), half of this around them as far as the image goes."""
  found = by_hand()
  picture = failure_pictures.close_up(Grays(), found, record(found, 'result', 5), record(found, '', 1))
  (_, boxes, labels, names) = captions[0]
  assert labels.tolist() == [0, 1] and names == ['cat 60 %', 'annotated: cat']
  np.testing.assert_array_equal(boxes, [[20, 10, 60, 25], [20, 10, 60, 50]])  # less the corner, (40, 0)
  assert picture.shape == (round(256 * 70 / 80), 256, 3)
  assert (picture[-20, 10] == 60).all()
  bottom = round(50 * 3.2)
  assert (picture[bottom - 1, 80:180] == class_colour(1)).all()  # a frame, and the border of its mask
  tinted = np.rint(0.55 * 60 + 0.45 * np.array(class_colour(1)))
  np.testing.assert_allclose(picture[bottom - 20, 100:160], np.broadcast_to(tinted, (60, 3)), atol=1)


def test_one_without_the_other(captions):
  found = by_hand()
  alone = failure_pictures.close_up(Grays(), found, record(found, 'result', 0), None)
  assert captions[0][2].tolist() == [0] and captions[0][3][0] == 'kite 99 %' and (alone[-1, -1] == 120).all()
  missed = failure_pictures.close_up(Grays(), found, None, record(found, '', 2))
  assert captions[1][2].tolist() == [1] and captions[1][3][1] == 'annotated: dog' and missed.shape[1] == 256


def test_an_image_that_cannot_be_read_is_black():
  found = by_hand()
  picture = failure_pictures.close_up(Grays(), found, None, record(found, '', 4))
  assert (picture[-1, -1] == 0).all() and picture.any()


def test_annotated_and_detected_side_by_side():
  annotated, detected = pictures.annotated_and_detected(Grays(), by_hand(), 1, 0.5)
  assert annotated.shape == detected.shape == (128, 256, 3)
  assert (annotated == 120).all() and (detected[25, :26] == class_colour(2)).all()
  assert (pictures.annotated_and_detected(Grays(), by_hand(), 1, 0.995)[1] == 120).all()
  annotated, detected = pictures.annotated_and_detected(Grays(), by_hand(), 0, 0.85)
  # The dog is annotated, and no dog is detected there.
  assert (annotated[63, 154:204] == class_colour(1)).all() and (detected[63, 154:204] == 60).all()
