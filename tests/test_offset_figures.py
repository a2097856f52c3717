"""Figures of offsets, contexts and kernel deltas, by what they are made of."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.quiver import QuiverKey

from ctx_flax.analysis import context_figures, offset_figures
from ctx_flax.analysis.images import Images
from ctx_flax.analysis.sampling_points import sample


def images_of(m, side=8):
  pixels = np.zeros((m, side, side, 3))
  return Images(pixels.astype('f'), pixels.astype(np.uint8), np.arange(m), tuple('abcdef'[:m]))


def test_figure_of_points():
  rng = np.random.default_rng(0)
  shifts = rng.normal(size=(2, 2, 2, 9, 2)).astype('f')
  mask = rng.random((2, 2, 2, 9)).astype('f')
  sampling = sample(shifts, mask, 2, 8, '3.0')
  figure = offset_figures.points(images_of(2), sampling, (1, 0), ('cat', 'dog'), mask_gain=2.0)
  for i, axes in enumerate(figure.axes[:2]):
    (discs,) = axes.collections
    np.testing.assert_allclose(discs.get_offsets(), sampling.points[i, 1, 0][:, ::-1])  # x, y
    np.testing.assert_allclose(discs.get_sizes(), offset_figures.AREA * mask[i, 1, 0] / 2)
    np.testing.assert_allclose(discs.get_array(), mask[i, 1, 0])
    assert axes.get_title().startswith(('cat', 'dog')[i])
    low, high = axes.get_xlim()
    assert low <= sampling.points[i, 1, 0].min() and high >= sampling.points[i, 1, 0].max()
    assert axes.get_ylim() == (high, low)  # rows go down, as in the image
    assert 'block 3.0' in axes.get_title()
    length = np.linalg.norm(sampling.points[i, 1, 0] - sampling.regular[1, 0], axis=-1).mean()
    assert f'{length / 4:.2f} feature px = {length:.1f} image px' in axes.get_title()
    *lines, grid, centre = axes.lines
    np.testing.assert_allclose(grid.get_xydata(), sampling.regular[1, 0][:, ::-1])
    assert grid.get_markerfacecolor() == 'none' and grid.get_linestyle() == 'None'
    np.testing.assert_allclose(centre.get_xydata(), [[1.5, 5.5]])
    ends = [line.get_xydata() for line in lines]
    np.testing.assert_allclose(
      ends, np.stack([sampling.regular[1, 0], sampling.points[i, 1, 0]], 1)[..., ::-1]
    )
    (frame,) = axes.patches
    assert frame.get_bbox().bounds == (-0.5, -0.5, 8, 8)
  assert 'mask weight' in figure.axes[-1].get_ylabel() and '3.0' in figure.get_suptitle()


def test_the_legend_of_weights():
  """Areas of the legend are those of discs of these weights."""
  sampling = sample(np.zeros((1, 2, 2, 9, 2), 'f'), np.full((1, 2, 2, 9), 0.5, 'f'), 2, 8)
  figure = offset_figures.points(images_of(1), sampling, (0, 0), ('cat',), mask_gain=2.0)
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.get_texts()][:3] == ['weight 0.5', 'weight 1', 'weight 2']
  areas = [handle.get_markersize() ** 2 for handle in legend.legend_handles[:3]]
  np.testing.assert_allclose(areas, np.array([0.25, 0.5, 1]) * offset_figures.AREA)
  np.testing.assert_allclose(figure.axes[0].collections[0].get_sizes(), areas[0])


def test_points_far_out_do_not_shrink_the_image():
  shifts = np.zeros((1, 2, 2, 9, 2), 'f')
  shifts[0, 0, 0, 3] = (0, 1000)
  sampling = sample(shifts, np.ones((1, 2, 2, 9), 'f'), 2, 8)
  figure = offset_figures.points(images_of(1), sampling, (0, 0), ('cat',), mask_gain=1.0)
  low, high = figure.axes[0].get_xlim()
  assert -4 < low < -2.5 and 15.5 < high < 17  # the grid, a side further out, a margin
  assert '1 taps look further out' in figure.axes[0].get_title()


@pytest.mark.parametrize('largest, length', [(3.4, 2), (5, 5), (0.62, 0.5), (0.1, 0.1), (19, 10)])
def test_lengths_of_key_arrows(largest, length):
  np.testing.assert_allclose(offset_figures.round_length(largest), length)


def test_figure_of_fields():
  sampling = sample(np.zeros((1, 4, 4, 9, 2), 'f'), np.ones((1, 4, 4, 9), 'f'), 4, 8, '2.0')
  one = sample(np.zeros((1, 1, 1, 9, 2), 'f'), np.ones((1, 1, 1, 9), 'f'), 1, 8, '4.0')
  field = np.zeros((1, 4, 4, 2))
  field[0, 1, 2] = (3, -4)
  found = {2: field, 3: np.zeros((1, 4, 4, 2)), 4: np.full((1, 1, 1, 2), [0.3, 0.4])}
  blocks = {2: '2.0', 3: '2.0', 4: '4.0'}
  figure = offset_figures.fields(images_of(1), found, blocks, {'2.0': sampling, '4.0': one}, ('cat',))
  panels = figure.axes
  arrows, nothing, single = (axes.collections[0] for axes in panels)
  np.testing.assert_allclose(arrows.U.reshape(4, 4)[1, 2], -4)
  np.testing.assert_allclose(arrows.V.reshape(4, 4)[1, 2], 3)
  np.testing.assert_allclose(arrows.get_offsets().reshape(4, 4, 2)[1, 2], [4.5, 2.5])
  # The longest is 5 px and drawn as 0.9 of the 2 px between positions.
  assert 'longest 5 px, drawn at 0.36 x true scale' in panels[0].get_title()
  np.testing.assert_allclose(arrows.scale, 1 / 0.36)
  (key,) = [child for child in panels[0].get_children() if isinstance(child, QuiverKey)]
  assert key.U == 5 and key.text.get_text() == '5 image px'
  assert not nothing.U.any() and 'no offsets' in panels[1].get_title()
  # One position: an arrow of one length whatever the offset, whose length is said.
  np.testing.assert_allclose([single.U.item(), single.V.item()], [0.8, 0.6])
  assert panels[2].get_xlabel() == 'length 0.5 image px'
  FigureCanvasAgg(figure).draw()  # a Figure's own canvas draws nothing


def test_classes_that_are_shown():
  labels = np.array([5, 5, 5, 2, 2, 7, *range(10, 20)])
  assert context_figures.shown_classes(labels) == [5, 2, 7, 10, 11, 12, 13]
  found = {
    'coordinates': np.arange(32.0).reshape(16, 2),
    'shares': np.array([0.75, 0.25]),
    'same_considered': False,
  }
  figure = context_figures.contexts({2: found}, labels, [f'c{i}' for i in range(20)])
  (axes,) = figure.axes
  assert '75 %' in axes.get_xlabel() and axes.get_title() == 'context of stage 2'
  rest, first = axes.collections[:2]
  assert len(rest.get_offsets()) == 6 and rest.get_label() == '6 other classes'
  np.testing.assert_allclose(first.get_offsets(), found['coordinates'][labels == 5])
  (legend,) = figure.legends
  assert [text.get_text() for text in legend.get_texts()][:3] == ['6 other classes', 'c5', 'c2']


def test_contexts_that_are_all_the_same():
  same = {'coordinates': np.zeros((4, 2)), 'shares': np.zeros(2), 'same_considered': True}
  labels = np.array([0, 1, 2, 3])
  figure = context_figures.contexts({2: same, 3: {**same, 'same_considered': False}}, labels, 'abcd')
  said = [text.get_text() for axes in figure.axes for text in axes.texts]
  assert said == ['the same for all images,\nwhich consider the same classes', 'the same for all images']
  FigureCanvasAgg(figure).draw()  # a Figure's own canvas draws nothing
  assert context_figures.distances_in_words(same) == 'the same for all images'


DISTANCES = {
  'coordinates': np.arange(8.0).reshape(4, 2),
  'shares': np.array([0.75, 0.25]),
  'all_images': 2.0,
  'same_class': 1.0,
  'other_class': 3.0,
  'correlation': -0.5,
  'same_considered': False,
}


@pytest.mark.parametrize(
  'change, bars, said',
  [
    ({}, [2, 1, 3], 'shared classes (Jaccard index) -0.50'),
    ({'same_class': np.nan, 'correlation': np.nan}, [2, 3], 'too little varies'),
    ({'correlation': np.nan, 'same_considered': True}, [2, 1, 3], 'all images consider'),
    ({'shares': np.zeros(2)}, [], ''),
  ],
)
def test_figure_of_kernel_deltas(change, bars, said):
  found = DISTANCES | change
  figure = context_figures.kernel_deltas(found, np.array([0, 0, 1, 1]), 'ab', '3.0')
  cloud, beside = figure.axes
  assert [bar.get_height() for bar in beside.patches] == bars and said in beside.get_title()
  assert len(cloud.collections) == (2 if bars else 0)
  assert 'nan' not in context_figures.distances_in_words(found)
  FigureCanvasAgg(figure).draw()  # a Figure's own canvas draws nothing
