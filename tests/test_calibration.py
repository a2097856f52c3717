"""Reliability and calibration error against values by hand."""

import io

import numpy as np

from ctx_flax.analysis import calibration


def test_by_hand():
  confidence = [0.1, 0.5, 0.6, 0.9, 1.0]
  correct = [False, True, False, True, True]
  found = calibration.reliability(confidence, correct, bins=2)
  # (0, 0.5] holds two, (0.5, 1] three.
  assert found['images'].tolist() == [2, 3]
  np.testing.assert_allclose(found['confidence'], [0.3, 2.5 / 3])
  np.testing.assert_allclose(found['accuracy'], [0.5, 2 / 3])
  np.testing.assert_allclose(found['ece'], (2 * 0.2 + 3 * (2.5 / 3 - 2 / 3)) / 5)


def test_edges_belong_to_the_bin_below():
  edges = np.linspace(0, 1, 11)[1:]
  found = calibration.reliability(edges, np.ones(10, bool), bins=10)
  assert found['images'].tolist() == [1] * 10
  assert calibration.reliability([0.0], [True], 10)['images'][0] == 1


def test_empty_bins():
  found = calibration.reliability([0.95, 0.95], [True, True], bins=10)
  assert np.isnan(found['accuracy'][:9]).all() and np.isnan(found['confidence'][0])
  np.testing.assert_allclose(found['ece'], 0.05)


def test_as_sure_as_right_has_no_error():
  confidence = np.repeat([0.25, 0.75], 400)
  correct = np.concatenate([np.arange(400) < 100, np.arange(400) < 300])
  assert calibration.reliability(confidence, correct, 15)['ece'] < 1e-12


def test_figure():
  found = calibration.reliability([0.1, 0.5, 0.6, 0.9, 1.0], [False, True, False, True, True], bins=4)
  figure = calibration.draw(found, 'a run')
  above, below = figure.axes
  np.testing.assert_allclose([bar.get_height() for bar in above.patches], [0, 100, 0, 100])
  np.testing.assert_allclose([bar.get_x() for bar in above.patches], [0, 25, 50, 75])
  assert [bar.get_height() for bar in below.patches] == [1, 1, 1, 2]
  assert [text.get_text() for text in below.texts] == ['1', '1', '1', '2']
  assert above.get_xlim() == above.get_ylim() == (0, 100)
  assert f'{100 * found["ece"]:.1f} %' in above.get_title() and 'confidence' in below.get_xlabel()


def test_the_name_of_a_run_is_no_mathematics():
  found = calibration.reliability([0.0, 1.0], [True, True], bins=40)
  figure = calibration.draw(found, r'a$\frac b$, step 1')
  figure.savefig(io.BytesIO())
  assert not figure.axes[1].texts  # so many numbers would lie on each other
