"""The curves of a detector's run: every loss where it belongs, and the precision of tests."""

import numpy as np
from test_failure_figures import drawn_texts

from ctx_flax.analysis import detector_curves


def metrics(stages=1, weights='raw'):
  steps = np.array([10.0, 20.0])
  values = {'train/rpn_class': 1, 'train/rpn_box': 2, 'train/loss': 9, 'learning_rate': 0.1}
  for stage in range(stages):
    values |= {f'train/{name}{stage}': 10 * stage + k for k, name in enumerate(('class', 'box', 'mask'), 3)}
  made = {name: (steps, np.array([value, value / 2])) for name, value in values.items()}
  tests = {'mask_ap': 0.2, 'mask_ap50': 0.4, 'box_ap': 0.3, 'box_ap50': np.nan, 'box_ap_small': 0.1}
  return made | {f'test/{weights}/{name}': (steps[1:], np.array([value])) for name, value in tests.items()}


def drawn(axes):
  return {line.get_label(): line.get_ydata().tolist() for line in axes.lines}


def test_six_panels():
  figure = detector_curves.draw(metrics(), 'a run')
  proposals, classes, boxes, masks, tests, rate = figure.axes
  assert drawn(proposals) == {'object or not': [1, 0.5], 'boxes': [2, 1]}
  assert [panel.lines[0].get_ydata()[0] for panel in (classes, boxes, masks, rate)] == [3, 4, 5, 0.1]
  assert [panel.get_legend() for panel in (classes, boxes, masks)] == [None] * 3  # of one stage
  assert list(drawn(tests)) == ['masks', 'masks, IoU 0.5', 'boxes', 'boxes, IoU 0.5']
  assert drawn(tests)['masks'] == [20] and tests.get_ylim()[0] == 0 and tests.get_ylim()[1] > 40
  assert {line.get_linestyle() for line in tests.lines} == {'None'}
  texts = drawn_texts(figure)
  assert all(fits for _, fits in texts)
  assert ('a run\nlines: training batches, marks: test images, raw weights', True) in texts


def test_the_stages_of_a_cascade():
  figure = detector_curves.draw(metrics(3, 'EMA'), 'a run')
  assert list(drawn(figure.axes[2])) == ['stage 1', 'stage 2', 'stage 3']
  assert [line.get_ydata()[0] for line in figure.axes[2].lines] == [4, 14, 24]
  assert any('EMA weights' in text for text, _ in drawn_texts(figure))


def test_a_run_that_has_just_begun():
  figure = detector_curves.draw({}, 'a run')
  assert not any(panel.lines for panel in figure.axes)
  assert any('not tested' in text for text, _ in drawn_texts(figure))


def test_two_runs():
  figure = detector_curves.draw_beside({'one': metrics(), 'other': metrics(3, 'EMA')})
  losses, tests = figure.axes
  assert list(drawn(losses)) == list(drawn(tests)) == ['one', 'other']
  assert drawn(tests)['other'] == [20] and drawn(losses)['one'] == [9, 4.5]
