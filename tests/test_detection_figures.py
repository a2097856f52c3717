"""The figures of detections: close-ups at their place, curves and bars of the numbers they are given."""

import numpy as np
from test_failure_figures import drawn_texts

from ctx_flax.analysis import detection_figures
from ctx_flax.data.object_drawing import class_colour

NAMES = ('cat', 'dog', 'kite', '$', *(f'class {n}' for n in range(4, 20)))


def test_a_close_up_shows_the_boxes_and_half_as_much_around():
  """Of an image that is black left of 40 and white right of it."""
  pixels = np.zeros((90, 120, 3), np.uint8)
  pixels[:, 40:] = 255
  picture = detection_figures.close_up(pixels, np.array([[20, 40, 40, 60]]), np.array([1]), NAMES, side=80)
  assert picture.shape == (80, 80, 3)  # of the pixels 10..50 by 30..70
  assert (picture[:5, :60] == 0).all() and (picture[:5, 60:] == 255).all()
  np.testing.assert_array_equal(picture[59, 20:60], np.tile(class_colour(1), (40, 1)))
  assert (picture[60:, :60] == 0).all() and (picture[60:, 60:] == 255).all()


def test_a_close_up_at_the_border_and_of_masks():
  pixels, mask = np.zeros((30, 60, 3), np.uint8), np.zeros((1, 30, 60), bool)
  mask[0, 20:30, 50:60] = True
  picture = detection_figures.close_up(
    pixels, np.array([[50, 20, 60, 30]]), np.array([0]), NAMES, np.array([0.5]), mask, side=150
  )
  assert picture.shape == (150, 150, 3)  # of the last 15 pixels each way
  assert picture[60:, 60:].any(-1).all() and not picture[:30, :50].any()
  flat = detection_figures.close_up(pixels, np.array([[0, 0, 60, 1]]), np.array([0]), NAMES, side=60)
  assert flat.shape == (30, 60, 3)


def test_the_gallery():
  pictures = [np.zeros((10 + n, 20, 3), np.uint8) for n in range(7)]
  captions = [f'{NAMES[n]} 90 %: duplicate\nimage {n}' for n in range(7)]
  figure = detection_figures.gallery(pictures, captions, 'False detections', 'a run')
  assert [axes.axison for axes in figure.axes] == [True] * 7 + [False] * 3
  assert figure.axes[3].get_title() == '\\$ 90 %: duplicate\nimage 3'
  assert figure.axes[6].images[0].get_array().shape == (16, 20, 3)
  texts = drawn_texts(figure)
  assert all(fits for _, fits in texts) and ('False detections\na run', True) in texts
  assert ('none', True) in drawn_texts(detection_figures.gallery([], [], 'False detections', 'a run'))
  assert len(detection_figures.gallery(pictures, captions, '', 'a run', columns=4).axes) == 8


def test_curves_name_the_best_and_the_worst():
  precision = np.linspace(1, 0, 20)[:, None] * np.ones((1, 101))
  precision[5] = np.nan
  figure = detection_figures.precision_curves(precision, NAMES, 'a run')
  lines = figure.axes[0].get_lines()
  assert len(lines) == 20  # 19 classes and their mean
  labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
  assert [label.split(':')[0] for label in labels] == [
    *('cat', 'dog', 'kite', 'class 17', 'class 18', 'class 19', 'mean of 19 classes')
  ]
  mean = np.nanmean(precision)
  assert labels[0] == 'cat: AP 100.0' and labels[-1] == f'mean of 19 classes: AP {100 * mean:.1f}'
  np.testing.assert_allclose(lines[-1].get_ydata(), 100 * mean)
  assert all(fits for _, fits in drawn_texts(figure))
  of_masks = detection_figures.precision_curves(precision, NAMES, 'a run', kind='mask')
  assert ('Precision at mask IoU 0.5\na run', True) in drawn_texts(of_masks)
  few = detection_figures.precision_curves(precision[:4], NAMES[:4], 'a run', threshold=0.75)
  assert len(few.axes[0].get_legend().get_texts()) == 5
  assert ('Precision at IoU 0.75\na run', True) in drawn_texts(few)


def test_curves_of_nothing():
  figure = detection_figures.precision_curves(np.full((2, 101), np.nan), NAMES[:2], 'a run')
  assert ('no objects', True) in drawn_texts(figure)


def test_bars_of_missed_objects():
  sizes = {'small': {'objects': 8, 'missed': 6}, 'medium': {'objects': 0, 'missed': 0}}
  sizes['large'] = {'objects': 1000, 'missed': 0}
  figure = detection_figures.missed_bars(sizes, 'a run')
  assert [bar.get_height() for bar in figure.axes[0].patches] == [75, 0]
  texts = [text for text, fits in drawn_texts(figure) if fits]
  assert {'6 of 8', '0 of 1,000', 'Missed objects by size\na run'} <= set(texts)
  assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ['small', 'large']
