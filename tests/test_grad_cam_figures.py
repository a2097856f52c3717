"""Figures of Grad-CAM: every map has its place and its words, however many there are."""

import numpy as np

from ctx_flax.analysis import grad_cam_figures
from ctx_flax.analysis.images import Images


def explained(m, k, **changed):
  """What `write` returns of m images and k classes by two networks, every map a ramp; and its Images."""
  networks = 'ctx', 'plain'
  each = lambda value: {network: value.copy() for network in networks}
  found = {
    'classes': np.tile(np.arange(k) % 2, (m, 1)),
    'roles': ('true', 'rival'),
    'maps': each(np.tile(np.array([[0, 1], [0, 1]], np.float32), (m, k, 1, 1))),
    'states': {network: [[''] * k for _ in range(m)] for network in networks},
    'probabilities': {'ctx': np.full((m, k), 0.93), 'plain': np.full((m, k), 0.4)},
    'dropped': each(np.zeros((m, k), int)),
    'stages': {'ctx': 3, 'plain': 3},
    'strides': {'ctx': 4, 'plain': 4},
    'centres': {'ctx': 1.5, 'plain': 1.5},
  }
  pixels = np.zeros((m, 8, 8, 3), np.uint8)
  images = Images(pixels.astype(np.float32), pixels, np.zeros(m, int), tuple(f'a/{i}.png' for i in range(m)))
  return images, found | changed


def titles(figure):
  return [axes.get_title().split('\n') for axes in figure.axes]


def test_figure():
  images, found = explained(1, 2, stages={'ctx': 3, 'plain': 4})
  found['states']['ctx'][0][1] = 'zero'
  found['dropped']['ctx'][0, 1], found['probabilities']['ctx'][0, 1] = 3, 0
  figure = grad_cam_figures.overlays(images, found, ('cat', 'dog'), 'hirescam')
  assert titles(figure)[:5] == [
    ['is cat'],
    ['ctx', 'cat', '93 %'],
    ['ctx', 'dog', 'dropped before stage 3'],
    ['plain', 'cat', '40 %'],
    ['plain', 'dog', '40 %'],
  ]
  assert [axes.get_xlabel() for axes in figure.axes[1:3]] == ['', 'map is zero']
  # The image and the map over it, at the image's resolution; nothing over it where there is nothing to show.
  assert [len(axes.images) for axes in figure.axes[:3]] == [1, 2, 1]
  np.testing.assert_allclose(
    figure.axes[1].images[1].get_array()[0], [0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1], atol=1e-6
  )
  # The more the map says the less of the image is to be seen, and never nothing.
  opacity = figure.axes[1].images[1].get_alpha()[0]
  assert (np.diff(opacity) >= 0).all() and opacity[0] == 0 and 0.5 < opacity[-1] < 1
  assert figure.axes[-1].get_ylabel() == "share of the map's highest value"
  assert figure.get_suptitle() == 'HiResCAM at stage 3 of ctx, stage 4 of plain: class and its probability'


def test_figure_of_files():
  """What a file shows is not known: it has its name, and what it was taken for if that is explained."""
  images, found = explained(1, 2, roles=('predicted', 'rival'))
  images.labels[:] = -1
  draw = lambda **changed: titles(
    grad_cam_figures.overlays(images, found | changed, ('cat', 'dog'), 'grad_cam')
  )
  assert draw()[0] == ['0.png', 'predicted', 'cat']
  assert draw(roles=('given', 'given'))[0] == ['0.png']


def test_curves():
  """The mean over the images, by the map and in random order, with the areas of both."""
  one = lambda high: {
    kind: {'map': np.array([high, 0.1, 0]), 'random': np.array([high, 0.3, 0])}
    for kind in ('deletion', 'insertion')
  }
  curves = [one(0.9), one(0.5)]
  means = {kind: {'map': 0.225, 'random': 0.325} for kind in ('deletion', 'insertion')}
  found = {'curves': {'ctx': curves}, 'mean_areas': {'ctx': means}, 'roles': ('true', 'rival')}
  figure = grad_cam_figures.curves(found)
  assert figure.get_suptitle() == 'Mean of 2 images: the true class'
  for panel, kind in zip(figure.axes, ('deletion', 'insertion'), strict=True):
    assert panel.get_title().startswith(kind)
    by_map, random = panel.lines
    np.testing.assert_allclose(by_map.get_xdata(), [0, 50, 100])
    np.testing.assert_allclose(by_map.get_ydata(), [70, 10, 0], atol=1e-9)
    np.testing.assert_allclose(random.get_ydata(), [70, 30, 0], atol=1e-9)
    assert by_map.get_linestyle() != random.get_linestyle()
    assert [text.get_text() for text in panel.get_legend().get_texts()] == [
      'ctx, by the map: area 0.225',
      'ctx, random order: area 0.325',
    ]


def test_many_images_and_classes():
  """A figure's width and height are bounded; what is not drawn is told."""
  one = grad_cam_figures.overlays(*explained(1, 3), ('cat', 'dog'), 'grad_cam')
  wide = grad_cam_figures.overlays(*explained(2, 8), ('cat', 'dog'), 'grad_cam')
  # Two networks' eight classes: each network begins a new line, of six and two.
  assert grad_cam_figures.arranged(['a', 'b'], 8) == [
    *([('a', c) for c in range(6)], [('a', 6), ('a', 7)]),
    *([('b', c) for c in range(6)], [('b', 6), ('b', 7)]),
  ]
  assert wide.get_size_inches()[0] == one.get_size_inches()[0]
  assert sum(len(axes.images) == 2 for axes in wide.axes) == 32 and 'first' not in wide.get_suptitle()
  full = grad_cam_figures.LINES
  many, found = explained(full + 3, 1)
  figure = grad_cam_figures.overlays(many, found, ('cat', 'dog'), 'grad_cam')
  assert figure.get_suptitle().endswith(f'; the first {full} of {full + 3} images')
  assert sum(len(axes.images) == 2 for axes in figure.axes) == 2 * full
